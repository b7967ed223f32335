"""What the supervisor knows at one moment.

The report, `status`, `top`, the live table and the metrics are all made from a
Snapshot, so that their sums agree. It is plain data and knows no shared memory:
`observe` takes one. It travels as JSON over the status socket.

Counters are dictionaries whose keys are the field names of the C structs of
shm/types.h, with two changes: `<noun>_ticks` became `<noun>_seconds`, and
`heartbeat` an age in seconds beside them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# A card's own counters of what it did not receive, by drop reason; what a queue had
# no descriptor for is counted queue by queue.
CARD_DROPS = {
    "missed": "rx_missed",
    "oversize": "rx_oversize",
    "runt": "rx_undersize",
    "crc": "rx_crc_errors",
}
NO_DESCRIPTOR = "no_descriptor"


@dataclass(frozen=True)
class PortSnapshot:
    """One port. `queues[q]` is struct rl_queue_counters of worker q's queue."""

    name: str
    device: str
    queues: tuple[dict[str, int], ...]
    mac: str = ""
    link_up: bool = False
    link_mbps: int = 0
    card: dict[str, int] = field(default_factory=dict)  # Port.statistics
    wire: dict[str, int] = field(default_factory=dict)  # Port.wire_statistics
    faults: tuple[str, ...] = ()  # what a simulated card refused to do

    def total(self, counter: str) -> int:
        """The sum of one counter over all queues."""
        return sum(queue[counter] for queue in self.queues)

    @property
    def card_drops(self) -> dict[str, int]:
        """What the card itself dropped and so was never received, by reason."""
        whole = {NO_DESCRIPTOR: sum(self.no_descriptor(q) for q in range(len(self.queues)))}
        for reason, statistic in CARD_DROPS.items():
            whole[reason] = self.card.get(statistic, 0)
        return whole

    def no_descriptor(self, queue: int) -> int:
        """What the card dropped because this queue had no free descriptor."""
        return self.card.get(f"rx_queue{queue}_dropped", 0)

    @property
    def drops(self) -> dict[str, int]:
        """Every packet that was received and lost, by its reason."""
        return {
            name.removeprefix("drop_"): self.total(name)
            for name in (self.queues[0] if self.queues else ())
            if name.startswith("drop_")
        }


@dataclass(frozen=True)
class PluginMetric:
    """A counter or gauge that a plugin named in its worker's slot."""

    name: str
    kind: str  # counter | gauge
    value: int


@dataclass(frozen=True)
class PluginHistogram:
    """Bucket b counts values below 2^b that no earlier one counts, the last all others."""

    name: str
    total: int  # the sum of the values
    buckets: tuple[int, ...]


@dataclass(frozen=True)
class PluginTable:
    """Rows of a label and numbers. `columns` are the names of the numbers."""

    name: str
    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class WorkerSnapshot:
    """One worker slot.

    `counters` is struct rl_worker_counters, `slot` struct rl_slot_counters (what
    the driver counts for this slot), `latency` its histogram.
    """

    queue: int
    plugin: str
    state: str
    up: bool
    pid: int | None
    generation: int
    restarts: int
    heartbeat_age: float | None  # seconds; None before the first beat
    ring_in: int  # references that wait on the ring to the worker,
    ring_out: int  # and on the one back
    counters: dict[str, float]
    slot: dict[str, float]
    latency: tuple[int, ...]
    metrics: tuple[PluginMetric, ...] = ()  # what its plugin named
    histograms: tuple[PluginHistogram, ...] = ()
    tables: tuple[PluginTable, ...] = ()

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong with packets in the worker, or with what it returned."""
        return {
            "plugin": int(self.counters["plugin_errors"]),
            "verdict": int(self.counters["verdict_errors"]),
            "reference": int(self.slot["bad_reference"]),
            "ring": int(self.slot["ring_faults"]),
        }


@dataclass(frozen=True)
class LaneSnapshot:
    """One packet loop of the driver: struct rl_lane_counters."""

    counters: dict[str, float]
    heartbeat_age: float | None


@dataclass(frozen=True)
class Holder:
    """Buffers of one holder: free, unusable, card_rx or card_tx of a port, a worker."""

    holder: str
    buffers: int
    port: str = ""
    worker: str = ""


@dataclass(frozen=True)
class Snapshot:
    """An instance at one moment."""

    name: str
    version: str
    state: str
    started: float  # seconds since 1970
    taken: float  # the same
    began: float  # seconds of the monotonic clock at the start, and now: what lasted, and
    clock: float  # rates, are differences of these, whatever sets the time of day
    driver_pid: int | None
    metrics_url: str | None
    ports: tuple[PortSnapshot, ...]
    workers: tuple[WorkerSnapshot, ...]
    lanes: tuple[LaneSnapshot, ...]
    buffers: tuple[Holder, ...]
    in_flight: dict[str, int]  # per port, counted
    balance: dict[str, int]  # one number per equation; 0 when right

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self.clock - self.began

    @property
    def balanced(self) -> bool:
        """Whether every equation of the books holds."""
        return not any(self.balance.values())

    @property
    def drops(self) -> dict[str, int]:
        """Every lost packet of all ports by its reason, those of the cards among them."""
        total: Counter[str] = Counter()
        for port in self.ports:
            total.update(port.card_drops)
            total.update(port.drops)
        return dict(total)

    def holders(self) -> dict[str, int]:
        """Buffers by holder in one flat dictionary: `free`, `card_rx.wan`, `worker.0`."""
        return {_key(held): held.buffers for held in self.buffers}


def _key(held: Holder) -> str:
    whose = held.port or held.worker
    return f"{held.holder}.{whose}" if whose else held.holder
