"""Take a Snapshot of an instance from its shared memory.

Workers can write anything into their own slot and rings, so nothing there is trusted:
heartbeat ages and ring occupancies are clamped to their possible range, WorkerSlot
checks the directory of a slot, and the words copied from one slot are bounded. So
`take` always ends
(tests/pipeline/telemetry/test_metrics.py: test_hostile_slots_cannot_break_the_endpoint).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.configuration.config import FRAME_MAX, RING_CAPACITY, Config
from ringline.pipeline.telemetry.plugin_values import PluginValues
from ringline.pipeline.telemetry.snapshot import (
    BY_VERDICT,
    Holder,
    LaneSnapshot,
    PortSnapshot,
    ProcessSnapshot,
    Snapshot,
    WorkerSnapshot,
)
from ringline.shm import counters, slots
from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks, ticks_per_second
from ringline.shm.drop_reasons import BUILT_IN
from ringline.shm.messages import PortReport
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment
from ringline.shm.slots import WorkerSlot
from ringline.shm.text import printable
from ringline.shm.usage import usage_of
from ringline.shm.version import version

VERSION_MAX = 50  # characters of the version of a plugin
# The driver writes the balance four times a second, in less than a microsecond, but the
# kernel may preempt it while it writes.
BALANCE_TRIES = 10
BALANCE_PAUSE = 100e-6  # seconds between two tries


@dataclass
class PortSource:
    """The state of a port as the driver last reported it to the supervisor."""

    name: str
    device: str
    mac: str = ""
    link_up: bool = False
    link_mbps: int = 0
    statistics: dict[str, int] = field(default_factory=dict)
    wire: dict[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    descriptors: tuple[int, int] = (0, 0)  # on the RX and on the TX ring of each queue
    queue_pairs: int = 0
    attached: str = ""  # how, for an interface of the kernel; the supervisor knows it

    def update(self, port: PortReport) -> None:
        """Take over what the driver reports of the port."""
        self.mac = port["mac"] or ""
        self.link_up, self.link_mbps = port["link"]["up"], port["link"]["mbps"]
        self.statistics, self.wire = port["statistics"], port["wire"]
        self.faults = tuple(port["faults"])


@dataclass
class WorkerSource:
    """The state of a worker as the supervisor knows it. `rings` is None while none are mapped."""

    queue: int
    plugin: str
    slot: WorkerSlot
    rings: RingPair | None = None
    state: str = "idle"
    up: bool = False
    pid: int | None = None
    generation: int = 0
    restarts: int = 0
    served: bool = False  # it was ready at least once
    version: str = ""  # of the plugin, as the worker told it
    reasons: dict[int, str] = field(default_factory=dict)  # names of drop reasons (note_reasons)

    def note_version(self, told: object) -> None:
        """Take over the plugin's version as the worker told it; None: it comes with ringline."""
        told = version() if told is None else told
        self.version = printable(told[:VERSION_MAX]) if isinstance(told, str) else ""


@dataclass
class Sources:
    """Everything that a snapshot is taken from. `lane` is the segment `.lane.0`."""

    name: str
    lane: Segment
    ports: list[PortSource]
    workers: list[WorkerSource]
    state: str = "starting"
    driver_pid: int | None = None
    metrics_url: str | None = None
    frame_max: int = FRAME_MAX  # bytes of the longest frame of any port
    started: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    balance: dict[str, Any] = field(init=False)  # struct rl_balance as last read

    def __post_init__(self) -> None:
        self.balance = counters.read(ffi.new("struct rl_balance *"))

    @classmethod
    def of(cls, config: Config, lane: Segment, worker_slots: list[WorkerSlot]) -> Sources:
        """The sources of an instance that is about to start."""
        return cls(
            name=config.name,
            lane=lane,
            frame_max=config.frame_max,
            ports=[
                PortSource(
                    port.name,
                    port.device,
                    descriptors=(port.rx_descriptors, port.tx_descriptors),
                    queue_pairs=port.queues,
                )
                for port in config.ports
            ],
            workers=[
                WorkerSource(queue, config.worker(queue).plugin, slot)
                for queue, slot in enumerate(worker_slots)
            ],
        )


def take(sources: Sources) -> Snapshot:
    """A snapshot of the instance now."""
    clock = _Clock()
    books = sources.lane.at("struct rl_lane_segment *")
    queues = _read_queues(sources, books)
    for worker in sources.workers:  # after the counters: what is counted has a name by then
        note_reasons(worker)
    balance = sources.balance = _balance(books, sources.balance)
    return Snapshot(
        name=sources.name,
        version=version(),
        state=sources.state,
        started=sources.started,
        taken=time.time(),
        began=sources.began,
        clock=time.monotonic(),
        driver_pid=sources.driver_pid,
        metrics_url=sources.metrics_url,
        ports=tuple(
            _port(source, queues[index], sources.workers)
            for index, source in enumerate(sources.ports)
        ),
        workers=tuple(_worker(source, books, clock) for source in sources.workers),
        lane=_lane(books, clock),
        buffers=tuple(_holders(sources, balance)),
        in_flight={
            port.name: balance["in_flight"][index] for index, port in enumerate(sources.ports)
        },
        balance=_equations(sources, balance),
        processes=tuple(_processes(sources)),
    )


def _processes(sources: Sources) -> Iterator[ProcessSnapshot]:
    """What each process uses; a process that has just ended is left out."""
    pids = [("supervisor", "", os.getpid()), ("driver", "", sources.driver_pid)]
    pids += [("worker", str(worker.queue), worker.pid) for worker in sources.workers]
    for name, worker, pid in pids:
        used = None if pid is None else usage_of(pid)
        if used is not None:
            yield ProcessSnapshot(name, worker, *used)


class _Clock:
    """Converts ticks to seconds; the age of every heartbeat is measured at one moment."""

    def __init__(self) -> None:
        self.now = ticks()
        self.rate = ticks_per_second()

    def age(self, heartbeat: int) -> float | None:
        """Seconds since `heartbeat`, in ticks; None before the first one."""
        return max(0.0, (self.now - heartbeat) / self.rate) if heartbeat else None

    def in_seconds(self, block: dict[str, Any]) -> dict[str, float]:
        """The counters of a block without its arrays; `<noun>_ticks` becomes `<noun>_seconds`."""
        return {
            name.removesuffix("_ticks") + "_seconds" if name.endswith("_ticks") else name: (
                value / self.rate if name.endswith("_ticks") else value
            )
            for name, value in block.items()
            if not isinstance(value, list)
        }


def note_reasons(worker: WorkerSource) -> list[str]:
    """Take over the drop reasons that the plugin has named; the names by number, "" without one.

    The first name of a number stays for the whole run, since packets were counted by it. A worker
    can write any entry: impossible numbers and names are left out.
    """
    for entry in worker.slot.entries():
        number, taken = entry.columns - 1, worker.reasons
        if entry.kind != slots.REASON or number in taken or not 0 <= number < lib.RL_REASONS_MAX:
            continue
        if entry.name not in BUILT_IN and entry.name not in taken.values():
            taken[number] = entry.name
    return [worker.reasons.get(number, "") for number in range(max(worker.reasons, default=-1) + 1)]


def _read_queues(sources: Sources, books: Any) -> list[list[dict[str, Any]]]:
    """The counters of every queue, by port."""
    workers = range(len(sources.workers))
    return [
        [counters.read(books.queues[port * lib.RL_QUEUES_MAX + queue]) for queue in workers]
        for port in range(len(sources.ports))
    ]


def _name_drops(queue: dict[str, Any], reasons: dict[int, str]) -> dict[str, int]:
    """The counters of a queue with a counter `drop_<name>` for each named drop reason.

    A number without a name counts as a drop by verdict: the loop of a worker lets none pass, so
    the worker is hostile, but the packets are dropped and the books must agree.
    """
    named = queue.pop("drop_named")
    for number, count in enumerate(named):
        if number in reasons:
            queue[f"drop_{reasons[number]}"] = count
        else:
            queue[f"drop_{BY_VERDICT}"] += count
    return queue


def _port(
    source: PortSource, queues: list[dict[str, Any]], workers: list[WorkerSource]
) -> PortSnapshot:
    return PortSnapshot(
        name=source.name,
        device=source.device,
        queues=tuple(
            _name_drops(queue, worker.reasons)
            for queue, worker in zip(queues, workers, strict=True)
        ),
        mac=source.mac,
        link_up=source.link_up,
        link_mbps=source.link_mbps,
        card=dict(source.statistics),
        wire=dict(source.wire),
        faults=source.faults,
        descriptors=source.descriptors,
        queue_pairs=source.queue_pairs,
        attached=source.attached,
        reasons=tuple(dict.fromkeys(name for of in workers for name in of.reasons.values())),
    )


def _worker(source: WorkerSource, books: Any, clock: _Clock) -> WorkerSnapshot:
    own = counters.read(source.slot.counters)
    heartbeat = own.pop("heartbeat")
    slot = counters.read(books.slots[source.queue])
    latency = slot.pop("latency")
    refusals = slot.pop("refusals")
    rings = source.rings
    named = PluginValues(source.slot)
    return WorkerSnapshot(
        queue=source.queue,
        plugin=source.plugin,
        version=source.version,
        served=source.served,
        state=source.state,
        up=source.up,
        pid=source.pid,
        generation=source.generation,
        restarts=source.restarts,
        heartbeat_age=clock.age(heartbeat),
        ring_in=_occupancy(rings.in_) if rings else 0,
        ring_out=_occupancy(rings.out) if rings else 0,
        counters=clock.in_seconds(own),
        slot=clock.in_seconds(slot),
        latency=tuple(latency),
        refusals=refusals,
        metrics=tuple(named.metrics),
        histograms=tuple(named.histograms),
        tables=tuple(named.tables),
        reasons=tuple(source.reasons.values()),
    )


def _occupancy(ring: Any) -> int:
    waiting: int = (ring.producer - ring.consumer) & 0xFFFFFFFF
    return min(waiting, RING_CAPACITY)


def _lane(books: Any, clock: _Clock) -> LaneSnapshot:
    block = counters.read(books.lane)
    heartbeat = block.pop("heartbeat")
    return LaneSnapshot(clock.in_seconds(block), clock.age(heartbeat))


def _balance(books: Any, last: dict[str, Any]) -> dict[str, Any]:
    """The balance of the lane, all fields of one moment.

    The driver makes `sequence` odd while it writes. Returns `last` when no try finds a
    complete balance; when the driver died there, the supervisor counts the books again.
    """
    copy = ffi.new("struct rl_balance *")
    for _ in range(BALANCE_TRIES):
        before = books.balance.sequence
        ffi.memmove(copy, ffi.addressof(books.balance), ffi.sizeof("struct rl_balance"))
        if before % 2 == 0 and books.balance.sequence == before:
            return counters.read(copy)
        time.sleep(BALANCE_PAUSE)
    return last


def _holders(sources: Sources, balance: dict[str, Any]) -> list[Holder]:
    held = [Holder("free", balance["free"]), Holder("unusable", balance["unusable"])]
    for index, port in enumerate(sources.ports):
        held.append(Holder("card_rx", balance["card_rx"][index], port=port.name))
        held.append(Holder("card_tx", balance["card_tx"][index], port=port.name))
    for worker in sources.workers:
        held.append(Holder("worker", balance["worker"][worker.queue], worker=str(worker.queue)))
    return held


def _equations(sources: Sources, balance: dict[str, Any]) -> dict[str, int]:
    """The residual of each equation of the books by its name; 0 when the equation holds."""
    equations: dict[str, int] = {}
    for index, port in enumerate(sources.ports):
        equations[f"packets.{port.name}"] = balance["packets_residual"][index]
        equations[f"descriptors.{port.name}"] = balance["descriptor_residual"][index]
    for worker in sources.workers:
        equations[f"worker.{worker.queue}"] = balance["worker_residual"][worker.queue]
    equations["buffers"] = balance["buffers_residual"]
    equations["blanks"] = balance["blanks_residual"]
    equations["scan_missing"] = balance["scan_missing"]
    equations["scan_duplicates"] = balance["scan_duplicates"]
    return equations
