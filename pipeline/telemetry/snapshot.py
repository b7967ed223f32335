"""The state of an instance at one moment, as plain data.

The report, `status`, `top`, the live table and the metrics are all made from a
Snapshot, so their sums agree. `observe` takes it from shared memory; the status
socket sends it as JSON.

Counters are dictionaries. Their keys are the field names of the C structs in
shm/types.h, with two changes: `<noun>_ticks` becomes `<noun>_seconds`, and
`heartbeat` becomes `heartbeat_age`, a field of its own, in seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# Drop reason -> statistic of the card, for packets that the card itself dropped.
# Packets dropped for want of a descriptor (NO_DESCRIPTOR) are counted per queue.
CARD_DROPS = {  # the names are also in shm/drop_reasons.py
    "missed": "rx_missed",
    "oversize": "rx_oversize",
    "runt": "rx_undersize",
    "crc": "rx_crc_errors",
}
NO_DESCRIPTOR = "no_descriptor"
BY_VERDICT = "plugin"  # the reason of packets that the plugin dropped without a name of its own


@dataclass(frozen=True)
class PortSnapshot:
    """One port. `queues[q]` is the struct rl_queue_counters of queue q, which worker q serves."""

    name: str
    device: str
    queues: tuple[dict[str, int], ...]
    mac: str = ""
    link_up: bool = False
    link_mbps: int = 0
    card: dict[str, int] = field(default_factory=dict)  # Port.statistics
    wire: dict[str, int] = field(default_factory=dict)  # Port.wire_statistics
    faults: tuple[str, ...] = ()  # a failure; of a simulated card also driver mistakes
    reasons: tuple[str, ...] = ()  # drop reasons that plugins named; each has a counter drop_<name>
    descriptors: tuple[int, int] = (0, 0)  # on the RX and on the TX ring of each queue
    queue_pairs: int = 0  # of this port; the instance may have more workers
    attached: str = ""  # how, as in "native XDP, copy", for an interface of the kernel

    def total(self, counter: str) -> int:
        """The sum of one counter over all queues; one without it counts nothing."""
        return sum(queue.get(counter, 0) for queue in self.queues)

    @property
    def card_drops(self) -> dict[str, int]:
        """Packets that the card dropped, by reason. They do not count as received."""
        whole = {NO_DESCRIPTOR: sum(self.no_descriptor(q) for q in range(len(self.queues)))}
        for reason, statistic in CARD_DROPS.items():
            whole[reason] = self.card.get(statistic, 0)
        return whole

    def no_descriptor(self, queue: int) -> int:
        """Packets that the card dropped because this queue had no free descriptor."""
        return self.card.get(f"rx_queue{queue}_dropped", 0)

    @property
    def drops(self) -> dict[str, int]:
        """Packets that were received and then dropped, by reason."""
        return {
            name.removeprefix("drop_"): self.total(name)
            for name in dict.fromkeys(name for queue in self.queues for name in queue)
            if name.startswith("drop_")
        }

    def dropped_by(self, reason: str) -> str:
        """Who dropped the packets of a reason: `plugin` by its verdict, `ringline` or `card`."""
        if reason == BY_VERDICT or reason in self.reasons:
            return "plugin"
        return "card" if reason == NO_DESCRIPTOR or reason in CARD_DROPS else "ringline"


@dataclass(frozen=True)
class PluginMetric:
    """A counter or gauge of a plugin. A counter with a label is one for each value of it; `of` is
    the value."""

    name: str
    kind: str  # counter | gauge
    value: float
    label: str = ""
    of: str = ""


@dataclass(frozen=True)
class PluginHistogram:
    """A histogram of a plugin. Bucket b counts values from 2^(b-1) to 2^b - 1, bucket 0
    the value 0, and the last bucket all larger values."""

    name: str
    total: int  # sum of the values
    buckets: tuple[int, ...]


@dataclass(frozen=True)
class PluginTable:
    """A table of a plugin: each row is a label and one number per name in `columns`.

    `label` is the heading of the labels.
    """

    name: str
    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class WorkerSnapshot:
    """One worker.

    `counters` is struct rl_worker_counters, written by the worker. `slot` is struct
    rl_slot_counters, written by the driver, without its histogram, which is `latency`:
    bucket b counts samples below 2^b x 64 ns that no earlier bucket counts.
    """

    queue: int
    plugin: str
    state: str
    up: bool
    pid: int | None
    generation: int
    restarts: int
    heartbeat_age: float | None  # seconds; None before the first heartbeat
    ring_in: int  # references on the ring to the worker
    ring_out: int  # references on the ring back to the driver
    counters: dict[str, float]
    slot: dict[str, float]
    latency: tuple[int, ...]
    metrics: tuple[PluginMetric, ...] = ()  # named by the plugin, as are the next two
    histograms: tuple[PluginHistogram, ...] = ()
    tables: tuple[PluginTable, ...] = ()
    refusals: dict[str, int] = field(default_factory=dict)  # struct rl_refusals: bad references
    reasons: tuple[str, ...] = ()  # drop reasons that the plugin named
    version: str = ""  # of the plugin; empty if it has none
    served: bool = True  # it was ready at least once

    @property
    def errors(self) -> dict[str, int]:
        """Errors in the worker, or in what it returned, by kind."""
        return {
            "plugin": int(self.counters["plugin_errors"]),
            "verdict": int(self.counters["verdict_errors"]),
            "tick": int(self.counters["tick_errors"]),
            "reference": int(self.slot["bad_reference"]),
            "ring": int(self.slot["ring_faults"]),
        }


@dataclass(frozen=True)
class LaneSnapshot:
    """The packet loop of the driver: struct rl_lane_counters."""

    counters: dict[str, float]
    heartbeat_age: float | None  # seconds; None before the first heartbeat


@dataclass(frozen=True)
class Holder:
    """How many buffers one holder has.

    `holder` is free, unusable, card_rx or card_tx (of `port`), or worker (`worker`).
    """

    holder: str
    buffers: int
    port: str = ""
    worker: str = ""


@dataclass(frozen=True)
class ProcessSnapshot:
    """What a process uses: `process` is supervisor, driver, or worker (`worker`)."""

    process: str
    worker: str
    cpu_seconds: float  # user and system
    memory_bytes: int  # in RAM, with what it shares with others


@dataclass(frozen=True)
class Snapshot:
    """The state of an instance at one moment.

    Durations and rates are differences of `began` and `clock`, which are monotonic: a
    change of the time of day does not affect them.
    """

    name: str
    version: str
    state: str
    started: float  # seconds since 1970
    taken: float  # seconds since 1970
    began: float  # time.monotonic() at the start
    clock: float  # time.monotonic() when the snapshot was taken
    driver_pid: int | None
    metrics_url: str | None
    ports: tuple[PortSnapshot, ...]
    workers: tuple[WorkerSnapshot, ...]
    lane: LaneSnapshot
    buffers: tuple[Holder, ...]
    in_flight: dict[str, int]  # packets by the port that received them
    balance: dict[str, int]  # residual by equation of the books; 0 when it holds
    processes: tuple[ProcessSnapshot, ...] = ()

    @property
    def seconds(self) -> float:
        """How long the instance has run, in seconds."""
        return self.clock - self.began

    @property
    def balanced(self) -> bool:
        """Whether every equation of the books holds."""
        return not any(self.balance.values())

    @property
    def drops(self) -> dict[str, int]:
        """Dropped packets of all ports by reason, including those that cards dropped."""
        total: Counter[str] = Counter()
        for port in self.ports:
            total.update(port.card_drops)
            total.update(port.drops)
        return dict(total)

    @property
    def lost(self) -> int:
        """Packets of all ports that were lost otherwise than by a verdict of the plugin."""
        return sum(
            number
            for port in self.ports
            for reason, number in (port.card_drops | port.drops).items()
            if port.dropped_by(reason) != "plugin"
        )

    def holders(self) -> dict[str, int]:
        """Buffers by holder; keys are `free`, `card_rx.wan`, `worker.0` and so on."""
        return {_key(held): held.buffers for held in self.buffers}


def _key(held: Holder) -> str:
    whose = held.port or held.worker
    return f"{held.holder}.{whose}" if whose else held.holder
