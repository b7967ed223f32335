"""Take a Snapshot of an instance from its shared memory.

Workers can write anything into their own slot and rings, so nothing there is trusted:
heartbeat ages and ring occupancies are clamped to their possible range, WorkerSlot
checks the directory of a slot, and the words copied from one slot are bounded. So
`take` always ends
(tests/pipeline/telemetry/test_metrics.py: test_hostile_slots_cannot_break_the_endpoint).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.configuration.config import RING_CAPACITY, Config
from ringline.pipeline.telemetry.snapshot import (
    Holder,
    LaneSnapshot,
    PluginHistogram,
    PluginMetric,
    PluginTable,
    PortSnapshot,
    Snapshot,
    WorkerSnapshot,
)
from ringline.shm import counters, slots
from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks, ticks_per_second
from ringline.shm.messages import PortReport
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment
from ringline.shm.slots import SlotEntry, WorkerSlot
from ringline.shm.version import version
from ringline.workers import tables

# A cap on what a snapshot copies, in words of 8 bytes, as are those of workers/tables.py.
HISTOGRAM_WORDS = 1 + 64  # of one histogram: its sum and the most buckets there are
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
            ports=[PortSource(port.name, port.device) for port in config.ports],
            workers=[
                WorkerSource(queue, config.worker(queue).plugin, slot)
                for queue, slot in enumerate(worker_slots)
            ],
        )


def take(sources: Sources) -> Snapshot:
    """A snapshot of the instance now."""
    clock = _Clock()
    books = sources.lane.at("struct rl_lane_segment *")
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
            _port(index, source, len(sources.workers), books)
            for index, source in enumerate(sources.ports)
        ),
        workers=tuple(_worker(source, books, clock) for source in sources.workers),
        lane=_lane(books, clock),
        buffers=tuple(_holders(sources, balance)),
        in_flight={
            port.name: balance["in_flight"][index] for index, port in enumerate(sources.ports)
        },
        balance=_equations(sources, balance),
    )


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


def _port(index: int, source: PortSource, queues: int, books: Any) -> PortSnapshot:
    first = index * lib.RL_QUEUES_MAX
    return PortSnapshot(
        name=source.name,
        device=source.device,
        queues=tuple(counters.read(books.queues[first + queue]) for queue in range(queues)),
        mac=source.mac,
        link_up=source.link_up,
        link_mbps=source.link_mbps,
        card=dict(source.statistics),
        wire=dict(source.wire),
        faults=source.faults,
    )


def _worker(source: WorkerSource, books: Any, clock: _Clock) -> WorkerSnapshot:
    own = counters.read(source.slot.counters)
    heartbeat = own.pop("heartbeat")
    slot = counters.read(books.slots[source.queue])
    latency = slot.pop("latency")
    refusals = slot.pop("refusals")
    rings = source.rings
    named = _PluginValues(source.slot)
    return WorkerSnapshot(
        queue=source.queue,
        plugin=source.plugin,
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
    )


def _occupancy(ring: Any) -> int:
    waiting: int = (ring.producer - ring.consumer) & 0xFFFFFFFF
    return min(waiting, RING_CAPACITY)


class _PluginValues:
    """The metrics, histograms and tables that a plugin named in its slot.

    Each entry is read once; an entry that is not valid is left out.
    """

    def __init__(self, slot: WorkerSlot) -> None:
        self.metrics: list[PluginMetric] = []
        self.histograms: list[PluginHistogram] = []
        self.tables: list[PluginTable] = []
        left = tables.SLOT_WORDS
        for entry in slot.entries():
            if entry.kind == slots.STATE or entry.bytes < 8:
                continue
            words = _words(slot, entry, min(left, tables.TABLE_WORDS))
            left -= len(words)
            if entry.kind == slots.HISTOGRAM:
                self._histogram(entry, words)
            elif entry.kind == slots.TABLE:
                self._table(entry, words)
            else:
                self.metrics.append(PluginMetric(entry.name, slots.KINDS[entry.kind], words[0]))

    def _histogram(self, entry: SlotEntry, words: list[int]) -> None:
        total, buckets = tables.read_histogram(words[:HISTOGRAM_WORDS])
        if len(buckets) > 1:
            self.histograms.append(PluginHistogram(entry.name, total, tuple(buckets)))

    def _table(self, entry: SlotEntry, words: list[int]) -> None:
        rows = tables.read_table(entry.type, entry.columns, words)
        label, *columns = entry.type.split() or [""]
        # A table that the worker is writing now is left out of this snapshot.
        if rows and len(set(columns)) == len(columns):
            named = tuple((name, tuple(values)) for name, values in rows)
            self.tables.append(PluginTable(entry.name, label, tuple(columns), named))


def _words(slot: WorkerSlot, entry: SlotEntry, most: int) -> list[int]:
    """At most `most` words from the start of an entry; of a table only whole rows."""
    if entry.kind != slots.TABLE:
        most = max(most, HISTOGRAM_WORDS)
    words = min(entry.bytes // 8, most)
    if entry.kind == slots.TABLE:
        words -= words % entry.columns
    return slot.values(
        SlotEntry(entry.name, entry.kind, entry.type, entry.columns, entry.offset, words * 8)
    )


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
