"""Metrics for Prometheus, made from a Snapshot at each scrape.

Each counter of a C struct becomes a metric. The tables below give its name and
description; a field without an entry is exported as `ringline_<block>_<field>_total`.

The name of the instance is in `ringline_build_info` only: one endpoint serves one
instance, and Prometheus adds its own `instance` label to every sample.
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
from ringline.shm.text import printable

# Field -> (name between `ringline_<block>_` and `_total`, description). None: the field
# is exported in another way.
Names = Mapping[str, tuple[str, str] | None]

QUEUE: Names = {
    "rx_packets": ("received_packets", "Packets received on this queue."),
    "rx_bytes": (
        "received_bytes",
        "Bytes of the received packets, without the CRC and stripped VLAN tags.",
    ),
    "rx_bursts": None,
    "tx_packets": ("sent_packets", "Packets that the card has finished sending from this queue."),
    "tx_bytes": (
        "sent_bytes",
        "Bytes of the sent packets, without the CRC, VLAN tags and padding that the card adds.",
    ),
    "tx_bursts": None,
    "transmitted": ("forwarded_packets", "Packets received on this queue and sent on any port."),
    "tx_waits": ("send_waits", "Times that the TX descriptor ring was full."),
    "rx_waits": (
        "receive_waits",
        "Times that the ring to the worker was full, so that nothing was received.",
    ),
    "rx_starved": (
        "receive_starvations",
        "Times that no free buffer was left for an RX descriptor.",
    ),
}
WORKER: Names = {
    "packets": ("packets", "Packets that the worker took from its ring."),
    "bytes": ("bytes", "Bytes of these packets."),
    "batches": None,
    "forwarded": ("forwarded_packets", "Packets that the plugin forwarded to a port."),
    "dropped": ("dropped_packets", "Packets that the plugin dropped."),
    "plugin_errors": None,
    "verdict_errors": None,
    "tick_errors": None,
    "created": ("created_packets", "Packets that the plugin created in blank buffers."),
    "busy_seconds": ("busy_seconds", "Time in passes of the worker loop that found packets."),
    "idle_seconds": (
        "idle_seconds",
        "Time in passes of the worker loop that found no packets, including sleep.",
    ),
    "plugin_seconds": ("plugin_seconds", "Time inside the plugin; a part of the busy time."),
    "sleeps": ("sleeps", "Times that the worker went to sleep."),
    "out_waits": ("return_waits", "Times that the ring back to the driver was full."),
}
SLOT: Names = {
    "pushed": ("pushed_references", "Packet references put on the ring to the worker."),
    "returned": ("returned_references", "Packet references accepted from the worker."),
    "lost": ("lost_references", "Packet references lost: the worker or the driver died."),
    "carried": (
        "carried_references",
        "Packet references that a dead worker had not taken and its successor got.",
    ),
    "bad_reference": None,
    "refusals": None,
    "ring_faults": None,
    "wakeups": ("wakeups", "Times that the driver woke the worker."),
    "blanks_granted": ("granted_blanks", "Blank buffers granted to the plugin."),
    "blanks_transmitted": ("sent_blanks", "Blank buffers sent as packets."),
    "blanks_returned": ("returned_blanks", "Blank buffers returned unused."),
    "blanks_lost": (
        "lost_blanks",
        "Blank buffers lost: a process died, or the output port was down.",
    ),
    "generation": None,
    "latency_seconds": None,
}
LANE: Names = {
    "passes": ("passes", "Passes of the packet loop."),
    "busy_seconds": ("busy_seconds", "Time in passes that moved packets, without simulated cards."),
    "idle_seconds": ("idle_seconds", "Time in passes that moved no packets, including sleep."),
    "model_seconds": (
        "model_seconds",
        "Time inside simulated cards that run in the driver process.",
    ),
    "sleeps": ("sleeps", "Times that the driver went to sleep."),
}

# Latency buckets: bucket b ends at 2^b x 64 ns. Those above 1.07 s are exported as one.
LATENCY_BASE = 64e-9
EXPORTED_BUCKETS = 25

HELP_EXTRA = "A counter of the packet path without a description."


class RinglineCollector(Collector):
    """A prometheus_client collector; `take` returns a snapshot."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering takes no snapshot."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of one snapshot, taken now."""
        yield from families(self._take())


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """All metrics of a snapshot."""
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
    """One metric family per field of a counter block; `rows` are (label values, fields)."""
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
    info = InfoMetricFamily("ringline_build", "Name of the instance and version of ringline.")
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
        ("receive", "rx", "Packets per receive burst; the count is the number of bursts."),
        ("send", "tx", "Packets per send burst; the count is the number of bursts."),
    ):
        bursts = SummaryMetricFamily(f"ringline_port_{name}_burst_packets", of, labels=labels)
        for values, fields in rows:
            bursts.add_metric(values, fields[f"{direction}_bursts"], fields[f"{direction}_packets"])
        yield bursts
    drops = CounterMetricFamily(
        "ringline_port_dropped_packets",
        "Dropped packets by reason, on the port and queue that received them; the queue is empty "
        "where the card counts per port.",
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
    up = GaugeMetricFamily("ringline_link_up", "1 if the port has a link, else 0.", labels=["port"])
    speed = GaugeMetricFamily(
        "ringline_link_speed_bytes",
        "Speed of the link in bytes per second; 0 without a link.",
        labels=["port"],
    )
    statistics = CounterMetricFamily(
        "ringline_card_statistics",
        "Counters of the card, by the name of the statistic.",
        labels=["port", "statistic"],
    )
    wire = GaugeMetricFamily(
        "ringline_wire_statistics",
        "Counters of the wire of a simulated card.",
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
    yield _gauge(snapshot, "up", "1 if the worker serves its queue, else 0.", lambda w: w.up)
    yield _gauge(
        snapshot,
        "generation",
        "Generation of the worker: 1 for the first process, 1 more for each successor.",
        lambda w: w.generation,
    )
    yield _gauge(
        snapshot,
        "heartbeat_age_seconds",
        "Time since the last pass of the worker loop.",
        lambda w: w.heartbeat_age,
    )
    restarts = CounterMetricFamily(
        "ringline_worker_restarts", "Times that the worker was replaced.", labels=labels
    )
    batches = SummaryMetricFamily(
        "ringline_worker_batch_packets",
        "Packets per batch for the plugin; the count is the number of batches.",
        labels=labels,
    )
    errors = CounterMetricFamily(
        "ringline_worker_errors",
        "Errors by kind: the plugin raised an exception, its verdict was invalid, its tick raised "
        "an exception, a returned reference was invalid, or a ring index was out of range or the "
        "worker held too many packets.",
        labels=["worker", "reason"],
    )
    refused = CounterMetricFamily(
        "ringline_worker_bad_references",
        "Returned references that the driver refused, by cause; errors by kind counts them too.",
        labels=["worker", "cause"],
    )
    occupancy = GaugeMetricFamily(
        "ringline_ring_references",
        "Packet references on the ring to the worker (in) and on the ring back (out).",
        labels=["worker", "ring"],
    )
    latency = HistogramMetricFamily(
        "ringline_worker_latency_seconds",
        "Time from receiving a packet to its return from the worker, sampled.",
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
        for cause, number in worker.refusals.items():
            refused.add_metric([*of, cause], number)
    yield from (restarts, batches, errors, refused, occupancy, latency)


def _latency(worker: WorkerSnapshot) -> list[tuple[str, float]]:
    """The latency histogram as (upper bound in seconds, cumulative count) pairs."""
    bounds = [LATENCY_BASE * 2**bucket for bucket in range(EXPORTED_BUCKETS)]
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
        "ringline_lane_heartbeat_age_seconds",
        "Time since the last pass of the packet loop.",
        labels=["lane"],
    )
    if snapshot.lane.heartbeat_age is not None:
        age.add_metric([number], snapshot.lane.heartbeat_age)
    yield age
    yield GaugeMetricFamily(
        "ringline_driver_up",
        "1 if the driver process runs, else 0.",
        value=float(snapshot.driver_pid is not None),
    )


def _books(snapshot: Snapshot) -> Iterator[Metric]:
    buffers = GaugeMetricFamily(
        "ringline_buffers",
        "Packet buffers by holder.",
        labels=["holder", "port", "worker"],
    )
    for held in snapshot.buffers:
        buffers.add_metric([held.holder, held.port, held.worker], held.buffers)
    in_flight = GaugeMetricFamily(
        "ringline_in_flight_packets",
        "Packets received on the port that workers or TX descriptor rings hold.",
        labels=["port"],
    )
    for port, number in snapshot.in_flight.items():
        in_flight.add_metric([port], number)
    balance = GaugeMetricFamily(
        "ringline_balance",
        "Residual of each equation of the books; a value other than 0 is a bug.",
        labels=["equation"],
    )
    for equation, residual in snapshot.balance.items():
        balance.add_metric([equation], residual)
    yield from (buffers, in_flight, balance)


def _plugins(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["plugin", "worker", "name"]
    events = CounterMetricFamily("ringline_plugin_events", "Counters of plugins.", labels=labels)
    values = GaugeMetricFamily("ringline_plugin_value", "Gauges of plugins.", labels=labels)
    distributions = HistogramMetricFamily(
        "ringline_plugin_distribution", "Histograms of plugins.", labels=labels
    )
    tables = GaugeMetricFamily(
        "ringline_plugin_table",
        "Tables of plugins, by the label of the row and the name of the column.",
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
            # Two rows may have the same label, but Prometheus refuses a repeated sample: keep
            # the first row.
            rows = {printable(label): numbers for label, numbers in reversed(table.rows)}
            for label, numbers in rows.items():
                for column, number in zip(table.columns, numbers, strict=True):
                    tables.add_metric([*of, table.name, label, column], number)
    yield from (events, values, distributions, tables)
