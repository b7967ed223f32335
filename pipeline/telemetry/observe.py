"""Take a Snapshot: read shared counters as they are at this moment.

What a worker can write is believed in nothing but its numbers: ages and
occupancies are cut to what is possible, names have been checked by WorkerSlot,
and a table is read up to TABLE_WORDS. Whatever is there, taking a snapshot ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from ringline.pipeline.telemetry.version import version
from ringline.shm import counters, slots
from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks, ticks_per_second
from ringline.shm.messages import PortReport
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment
from ringline.shm.slots import SlotEntry, WorkerSlot
from ringline.workers import tables

# A snapshot copies at most this many words of one table of a plugin (400 rows of
# two values), and of all that one plugin named.
TABLE_WORDS = 4096
SLOT_WORDS = 4 * TABLE_WORDS
HISTOGRAM_WORDS = 1 + 64  # as many as a worker can ask for
# The driver writes its balances in less than a microsecond, four times a second; it
# may lose its processor just then.
BALANCE_TRIES = 10
BALANCE_PAUSE = 100e-6


@dataclass
class PortSource:
    """What the driver last said of a port; the supervisor keeps it up to date."""

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
    """A worker slot as the supervisor knows it. `rings` None: not attached now."""

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
    """Everything that a snapshot is taken from. `lanes` are the segments `.lane.<n>`."""

    name: str
    lanes: Sequence[Segment]
    ports: list[PortSource]
    workers: list[WorkerSource]
    state: str = "starting"
    driver_pid: int | None = None
    metrics_url: str | None = None
    started: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    balances: list[dict[str, Any]] = field(init=False)  # of each lane, as last read

    def __post_init__(self) -> None:
        self.balances = [counters.read(ffi.new("struct rl_balance *")) for _ in self.lanes]

    @classmethod
    def of(
        cls, config: Config, lanes: Sequence[Segment], worker_slots: list[WorkerSlot]
    ) -> Sources:
        """The sources of an instance that is about to start."""
        return cls(
            name=config.name,
            lanes=lanes,
            ports=[PortSource(port.name, port.device) for port in config.ports],
            workers=[
                WorkerSource(queue, config.worker(queue).plugin, slot)
                for queue, slot in enumerate(worker_slots)
            ],
        )


def take(sources: Sources) -> Snapshot:
    """An instance at this moment."""
    clock = _Clock()
    books = [lane.at("struct rl_lane_segment *") for lane in sources.lanes]
    balances = [_balance(book, last) for book, last in zip(books, sources.balances, strict=True)]
    sources.balances = balances
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
        lanes=tuple(_lane(book, clock) for book in books),
        buffers=tuple(_holders(sources, balances)),
        in_flight={
            port.name: sum(balance["in_flight"][index] for balance in balances)
            for index, port in enumerate(sources.ports)
        },
        balance=_equations(sources, balances),
    )


class _Clock:
    """Turns ticks into seconds, all at one moment."""

    def __init__(self) -> None:
        self.now = ticks()
        self.rate = ticks_per_second()

    def age(self, heartbeat: int) -> float | None:
        """Seconds since `heartbeat`; None if there was none yet."""
        return max(0.0, (self.now - heartbeat) / self.rate) if heartbeat else None

    def in_seconds(self, block: dict[str, Any]) -> dict[str, float]:
        """Counters with every `<noun>_ticks` as `<noun>_seconds`, without arrays."""
        return {
            name.removesuffix("_ticks") + "_seconds" if name.endswith("_ticks") else name: (
                value / self.rate if name.endswith("_ticks") else value
            )
            for name, value in block.items()
            if not isinstance(value, list)
        }


def _port(index: int, source: PortSource, queues: int, books: Sequence[Any]) -> PortSnapshot:
    per_queue = []
    for queue in range(queues):
        blocks = [counters.read(book.queues[index * lib.RL_QUEUES_MAX + queue]) for book in books]
        per_queue.append({name: sum(block[name] for block in blocks) for name in blocks[0]})
    return PortSnapshot(
        name=source.name,
        device=source.device,
        queues=tuple(per_queue),
        mac=source.mac,
        link_up=source.link_up,
        link_mbps=source.link_mbps,
        card=dict(source.statistics),
        wire=dict(source.wire),
        faults=source.faults,
    )


def _worker(source: WorkerSource, books: Sequence[Any], clock: _Clock) -> WorkerSnapshot:
    own = counters.read(source.slot.counters)
    heartbeat = own.pop("heartbeat")
    # A queue belongs to one lane; in the books of the others its counters are 0.
    blocks = [counters.read(book.slots[source.queue]) for book in books]
    latency = [sum(bucket) for bucket in zip(*(block["latency"] for block in blocks), strict=True)]
    slot = {name: sum(block[name] for block in blocks) for name in blocks[0] if name != "latency"}
    rings = source.rings
    named = _Named(source.slot)
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
        metrics=tuple(named.metrics),
        histograms=tuple(named.histograms),
        tables=tuple(named.tables),
    )


def _occupancy(ring: Any) -> int:
    waiting: int = (ring.producer - ring.consumer) & 0xFFFFFFFF
    return min(waiting, RING_CAPACITY)


class _Named:
    """What the plugin of one slot named, each entry read once, as far as it makes sense."""

    def __init__(self, slot: WorkerSlot) -> None:
        self.metrics: list[PluginMetric] = []
        self.histograms: list[PluginHistogram] = []
        self.tables: list[PluginTable] = []
        left = SLOT_WORDS
        for entry in slot.entries():
            if entry.kind == slots.STATE or entry.bytes < 8:
                continue
            words = _words(slot, entry, min(left, TABLE_WORDS))
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
        # A table that is being written now is there again next time.
        if rows and len(set(columns)) == len(columns):
            named = tuple((name, tuple(values)) for name, values in rows)
            self.tables.append(PluginTable(entry.name, label, tuple(columns), named))


def _words(slot: WorkerSlot, entry: SlotEntry, most: int) -> list[int]:
    """The first numbers of an entry, `most` at most, a table's in whole rows."""
    if entry.kind != slots.TABLE:
        most = max(most, HISTOGRAM_WORDS)
    words = min(entry.bytes // 8, most)
    if entry.kind == slots.TABLE:
        words -= words % entry.columns
    return slot.values(
        SlotEntry(entry.name, entry.kind, entry.type, entry.columns, entry.offset, words * 8)
    )


def _lane(book: Any, clock: _Clock) -> LaneSnapshot:
    block = counters.read(book.lane)
    heartbeat = block.pop("heartbeat")
    return LaneSnapshot(clock.in_seconds(block), clock.age(heartbeat))


def _balance(book: Any, last: dict[str, Any]) -> dict[str, Any]:
    """The balances of a lane, of one moment; `last` when they are being written all the
    time. A driver that died just then has its books counted again by the supervisor."""
    copy = ffi.new("struct rl_balance *")
    for _ in range(BALANCE_TRIES):
        before = book.balance.sequence
        ffi.memmove(copy, ffi.addressof(book.balance), ffi.sizeof("struct rl_balance"))
        if before % 2 == 0 and book.balance.sequence == before:
            return counters.read(copy)
        time.sleep(BALANCE_PAUSE)
    return last


def _holders(sources: Sources, balances: Sequence[dict[str, Any]]) -> list[Holder]:
    def total(name: str, index: int | None = None) -> int:
        fields = [balance[name] for balance in balances]
        return sum(fields if index is None else (field[index] for field in fields))

    held = [Holder("free", total("free")), Holder("unusable", total("unusable"))]
    for index, port in enumerate(sources.ports):
        held.append(Holder("card_rx", total("card_rx", index), port=port.name))
        held.append(Holder("card_tx", total("card_tx", index), port=port.name))
    for worker in sources.workers:
        held.append(Holder("worker", total("worker", worker.queue), worker=str(worker.queue)))
    return held


def _equations(sources: Sources, balances: Sequence[dict[str, Any]]) -> dict[str, int]:
    """One number per equation, 0 when right. Those of the first lane need no prefix."""
    equations: dict[str, int] = {}
    for lane, balance in enumerate(balances):
        prefix = f"lane.{lane}." if lane else ""
        for index, port in enumerate(sources.ports):
            equations[f"{prefix}packets.{port.name}"] = balance["packets_residual"][index]
            equations[f"{prefix}descriptors.{port.name}"] = balance["descriptor_residual"][index]
        for worker in sources.workers:
            residual = balance["worker_residual"][worker.queue]
            equations[f"{prefix}worker.{worker.queue}"] = residual
        equations[f"{prefix}buffers"] = balance["buffers_residual"]
        equations[f"{prefix}blanks"] = balance["blanks_residual"]
        equations[f"{prefix}scan_missing"] = balance["scan_missing"]
        equations[f"{prefix}scan_duplicates"] = balance["scan_duplicates"]
    return equations
