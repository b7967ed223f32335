"""Metrics for Prometheus, made from a Snapshot at scrape time.

The packet path knows nothing of this. Counters become metrics by their field
names in the C structs: one that is added there appears here by itself, as
`ringline_<block>_<field>_total`; the tables below give most a better name.

One endpoint is one instance. Its name is in `ringline_build_info`, not in every
sample: Prometheus puts its own `instance` label on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from ringline.pipeline.telemetry.snapshot import NO_DESCRIPTOR, Snapshot, WorkerSnapshot

# Field -> (name between `ringline_<block>_` and `_total`, what it counts). Fields
# that are exported in another way have None.
Names = Mapping[str, tuple[str, str] | None]

QUEUE: Names = {
    "rx_packets": ("received_packets", "Packets received from RX descriptors."),
    "rx_bytes": (
        "received_bytes",
        "Bytes of the packets received, without CRC and stripped tags.",
    ),
    "rx_bursts": None,
    "tx_packets": ("sent_packets", "Packets that this port completed sending."),
    "tx_bytes": (
        "sent_bytes",
        "Bytes of the packets sent, without the CRC, tags and padding that the card adds.",
    ),
    "tx_bursts": None,
    "transmitted": ("forwarded_packets", "Packets received here and sent on any port."),
    "tx_waits": ("send_waits", "Times the TX descriptor ring was full."),
    "rx_waits": ("receive_waits", "Times a worker's ring was full while packets may have waited."),
    "rx_starved": ("receive_starvations", "Times no free buffer was left for an RX descriptor."),
}
WORKER: Names = {
    "packets": ("packets", "Packets taken from the ring to the worker."),
    "bytes": ("bytes", "Bytes of these packets."),
    "batches": None,
    "forwarded": ("forwarded_packets", "Packets for which the plugin named a port."),
    "dropped": ("dropped_packets", "Packets that the plugin dropped."),
    "plugin_errors": None,
    "verdict_errors": None,
    "created": ("created_packets", "Packets that the plugin made in blank buffers."),
    "busy_seconds": ("busy_seconds", "Time in passes that found packets."),
    "idle_seconds": ("idle_seconds", "Time in passes that found none, sleep included."),
    "plugin_seconds": ("plugin_seconds", "Time inside the plugin, a part of the busy time."),
    "sleeps": ("sleeps", "Times the worker went to sleep."),
    "out_waits": ("return_waits", "Times the ring back to the driver was full."),
}
SLOT: Names = {
    "pushed": ("pushed_references", "References put on the ring to the worker."),
    "returned": ("returned_references", "References accepted from the worker."),
    "lost": ("lost_references", "References settled as lost with a dead worker."),
    "carried": ("carried_references", "References handed unpopped to a successor."),
    "bad_reference": None,
    "ring_faults": None,
    "wakeups": ("wakeups", "Times the driver woke the worker."),
    "blanks_granted": ("granted_blanks", "Blank buffers given to the plugin."),
    "blanks_transmitted": ("sent_blanks", "Blank buffers sent as packets."),
    "blanks_returned": ("returned_blanks", "Blank buffers given back unused."),
    "blanks_lost": ("lost_blanks", "Blank buffers lost with a dead worker."),
    "generation": None,
    "latency_seconds": None,
}
LANE: Names = {
    "passes": ("passes", "Passes of the packet loop."),
    "busy_seconds": ("busy_seconds", "Time in passes that moved packets, without device models."),
    "idle_seconds": ("idle_seconds", "Time in passes that moved none, sleep included."),
    "model_seconds": ("model_seconds", "Time inside device models in the driver process."),
    "sleeps": ("sleeps", "Times the driver went to sleep."),
}

# Latency buckets: 2^b times 64 ns, here up to 1.07 s; all above is one bucket.
LATENCY_BASE = 64e-9
LATENCY_BUCKETS = 25

HELP_EXTRA = "A counter of the packet path that has no description yet."


class RinglineCollector(Collector):
    """A prometheus_client collector over a function that takes a snapshot."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def describe(self) -> Iterable[Metric]:
        """Nothing: a snapshot is not taken before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment."""
        yield from families(self._take())


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Every metric of a snapshot."""
    yield _info(snapshot)
    yield from _ports(snapshot)
    yield from _cards(snapshot)
    yield from _workers(snapshot)
    yield from _lane(snapshot)
    yield from _books(snapshot)
    yield from _plugins(snapshot)


def counters(
    block: str,
    names: Names,
    labels: list[str],
    rows: Iterable[tuple[list[str], Mapping[str, float]]],
) -> Iterator[Metric]:
    """One family for each field of a counter block; `rows` are (label values, fields)."""
    made: dict[str, CounterMetricFamily] = {}
    for values, fields in rows:
        for field, number in fields.items():
            name = names.get(field, (field, HELP_EXTRA))
            if name is None or field.startswith("drop_"):
                continue
            if field not in made:
                made[field] = CounterMetricFamily(
                    f"ringline_{block}_{name[0]}", name[1], labels=labels
                )
            made[field].add_metric(values, number)
    yield from made.values()


def _info(snapshot: Snapshot) -> Metric:
    info = InfoMetricFamily("ringline_build", "The instance's name and the version it runs.")
    info.add_metric([], {"name": snapshot.name, "version": snapshot.version})
    return info


def _ports(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["port", "queue"]
    rows = [
        ([port.name, str(queue)], fields)
        for port in snapshot.ports
        for queue, fields in enumerate(port.queues)
    ]
    yield from counters("port", QUEUE, labels, rows)
    for name, direction, of in (
        ("receive", "rx", "Packets received at once; the count is of bursts."),
        ("send", "tx", "Packets posted for sending at once; the count is of bursts."),
    ):
        bursts = SummaryMetricFamily(f"ringline_port_{name}_burst_packets", of, labels=labels)
        for values, fields in rows:
            bursts.add_metric(values, fields[f"{direction}_bursts"], fields[f"{direction}_packets"])
        yield bursts
    drops = CounterMetricFamily(
        "ringline_port_dropped_packets",
        "Lost packets by reason, where they came in; some the card cannot tell by queue.",
        labels=["port", "queue", "reason"],
    )
    for port in snapshot.ports:
        for reason, number in port.card_drops.items():
            if reason != NO_DESCRIPTOR:
                drops.add_metric([port.name, "", reason], number)
        for queue in range(len(port.queues)):
            drops.add_metric([port.name, str(queue), NO_DESCRIPTOR], port.no_descriptor(queue))
    for values, fields in rows:
        for field, number in fields.items():
            if field.startswith("drop_"):
                drops.add_metric([*values, field.removeprefix("drop_")], number)
    yield drops


def _cards(snapshot: Snapshot) -> Iterator[Metric]:
    up = GaugeMetricFamily("ringline_link_up", "Whether the cable has a link.", labels=["port"])
    speed = GaugeMetricFamily(
        "ringline_link_speed_bytes", "Bytes per second of the link, 0 when down.", labels=["port"]
    )
    statistics = CounterMetricFamily(
        "ringline_card_statistics",
        "What the card itself counts, by the name of the statistic.",
        labels=["port", "statistic"],
    )
    wire = GaugeMetricFamily(
        "ringline_wire_statistics",
        "What the wire of a simulated card counts for itself.",
        labels=["port", "statistic"],
    )
    for port in snapshot.ports:
        up.add_metric([port.name], port.link_up)
        speed.add_metric([port.name], port.link_mbps * 125_000)
        for name, number in port.card.items():
            statistics.add_metric([port.name, name], number)
        for name, number in port.wire.items():
            wire.add_metric([port.name, name], number)
    yield from (up, speed, statistics, wire)


def _gauge(
    snapshot: Snapshot, name: str, of: str, value: Callable[[WorkerSnapshot], float | None]
) -> Metric:
    gauge = GaugeMetricFamily(f"ringline_worker_{name}", of, labels=["worker"])
    for worker in snapshot.workers:
        number = value(worker)
        if number is not None:
            gauge.add_metric([str(worker.queue)], number)
    return gauge


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["worker"]
    rows = [([str(worker.queue)], worker) for worker in snapshot.workers]
    yield from counters("worker", WORKER, labels, [(of, worker.counters) for of, worker in rows])
    yield from counters("worker", SLOT, labels, [(of, worker.slot) for of, worker in rows])
    yield _gauge(snapshot, "up", "Whether the worker serves its queue.", lambda w: w.up)
    yield _gauge(snapshot, "generation", "Lives of the worker slot.", lambda w: w.generation)
    yield _gauge(
        snapshot,
        "heartbeat_age_seconds",
        "Time since the worker's last pass.",
        lambda w: w.heartbeat_age,
    )
    restarts = CounterMetricFamily(
        "ringline_worker_restarts", "Times the worker was replaced.", labels=labels
    )
    batches = SummaryMetricFamily(
        "ringline_worker_batch_packets",
        "Packets given to the plugin at once; the count is of batches.",
        labels=labels,
    )
    errors = CounterMetricFamily(
        "ringline_worker_errors",
        "Faults by kind: the plugin raised, its verdict or a returned reference was refused, "
        "or a ring index was out of range.",
        labels=["worker", "reason"],
    )
    occupancy = GaugeMetricFamily(
        "ringline_ring_references",
        "References that wait on a ring: to the worker (in), back to the driver (out).",
        labels=["worker", "ring"],
    )
    latency = HistogramMetricFamily(
        "ringline_worker_latency_seconds",
        "Sampled time from the driver's harvest of a packet to its return.",
        labels=labels,
    )
    for of, worker in rows:
        restarts.add_metric(of, worker.restarts)
        batches.add_metric(of, int(worker.counters["batches"]), worker.counters["packets"])
        for reason, number in worker.errors.items():
            errors.add_metric([*of, reason], number)
        occupancy.add_metric([*of, "in"], worker.ring_in)
        occupancy.add_metric([*of, "out"], worker.ring_out)
        latency.add_metric(of, _latency(worker), worker.slot["latency_seconds"])
    yield from (restarts, batches, errors, occupancy, latency)


def _latency(worker: WorkerSnapshot) -> list[tuple[str, float]]:
    """Cumulative buckets as Prometheus wants them."""
    bounds = [LATENCY_BASE * 2**bucket for bucket in range(LATENCY_BUCKETS)]
    return _cumulative(bounds, worker.latency)


def _cumulative(bounds: Iterable[float], buckets: tuple[int, ...]) -> list[tuple[str, float]]:
    result: list[tuple[str, float]] = []
    total = 0
    for bound, number in zip(bounds, buckets, strict=False):
        total += number
        result.append((repr(float(bound)), total))
    result.append(("+Inf", sum(buckets)))
    return result


def _lane(snapshot: Snapshot) -> Iterator[Metric]:
    # There is one lane; the label stays because dashboards use it.
    number = "0"
    yield from counters("lane", LANE, ["lane"], [([number], snapshot.lane.counters)])
    age = GaugeMetricFamily(
        "ringline_lane_heartbeat_age_seconds", "Time since the lane's last pass.", labels=["lane"]
    )
    if snapshot.lane.heartbeat_age is not None:
        age.add_metric([number], snapshot.lane.heartbeat_age)
    yield age
    yield GaugeMetricFamily(
        "ringline_driver_up",
        "Whether the driver process runs.",
        value=float(snapshot.driver_pid is not None),
    )


def _books(snapshot: Snapshot) -> Iterator[Metric]:
    buffers = GaugeMetricFamily(
        "ringline_buffers",
        "Packet buffers by who holds them.",
        labels=["holder", "port", "worker"],
    )
    for held in snapshot.buffers:
        buffers.add_metric([held.holder, held.port, held.worker], held.buffers)
    in_flight = GaugeMetricFamily(
        "ringline_in_flight_packets",
        "Packets received on the port that are with workers or on TX descriptor rings.",
        labels=["port"],
    )
    for port, number in snapshot.in_flight.items():
        in_flight.add_metric([port], number)
    balance = GaugeMetricFamily(
        "ringline_balance",
        "What is left of each equation of the books; anything but 0 is a bug.",
        labels=["equation"],
    )
    for equation, residual in snapshot.balance.items():
        balance.add_metric([equation], residual)
    yield from (buffers, in_flight, balance)


def _plugins(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["plugin", "worker", "name"]
    events = CounterMetricFamily(
        "ringline_plugin_events", "Counters that plugins named.", labels=labels
    )
    values = GaugeMetricFamily("ringline_plugin_value", "Gauges that plugins named.", labels=labels)
    distributions = HistogramMetricFamily(
        "ringline_plugin_distribution", "Histograms that plugins named.", labels=labels
    )
    tables = GaugeMetricFamily(
        "ringline_plugin_table",
        "Tables that plugins named, by the label of the row and the name of the column.",
        labels=[*labels, "row", "column"],
    )
    for worker in snapshot.workers:
        of = [worker.plugin, str(worker.queue)]
        for metric in worker.metrics:
            family = events if metric.kind == "counter" else values
            family.add_metric([*of, metric.name], metric.value)
        for histogram in worker.histograms:
            bounds = [2**bucket - 1 for bucket in range(len(histogram.buckets) - 1)]
            buckets = _cumulative(bounds, histogram.buckets)
            distributions.add_metric([*of, histogram.name], buckets, histogram.total)
        for table in worker.tables:
            # Two rows may have one label; the same sample twice is refused by Prometheus.
            rows = {_printable(label): numbers for label, numbers in reversed(table.rows)}
            for label, numbers in rows.items():
                for column, number in zip(table.columns, numbers, strict=True):
                    tables.add_metric([*of, table.name, label, column], number)
    yield from (events, values, distributions, tables)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
