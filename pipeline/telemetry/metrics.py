"""Metrics for Prometheus, made from a Snapshot at each scrape.

Each counter of a C struct becomes a metric. The tables below and in metrics_workers.py give its
name and description; a field without an entry is exported as `ringline_<block>_<field>_total`.

The queue and its worker have the same number, and in every metric the label `worker` has it.

The name of the instance is in `ringline_build_info` only: one endpoint serves one
instance, and Prometheus adds its own `instance` label to every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from ringline.pipeline.telemetry.metrics_workers import Names, counters, cumulative, workers
from ringline.pipeline.telemetry.snapshot import NO_DESCRIPTOR, Snapshot
from ringline.shm.text import printable
from ringline.workers.tables import SERIES_MAX

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
    yield from _processes(snapshot)
    yield from _ports(snapshot)
    yield from _cards(snapshot)
    yield from workers(snapshot)
    yield from _lane(snapshot)
    yield from _books(snapshot)
    yield from _plugins(snapshot)


def _info(snapshot: Snapshot) -> Metric:
    info = InfoMetricFamily("ringline_build", "Name of the instance and version of ringline.")
    info.add_metric([], {"name": snapshot.name, "version": snapshot.version})
    return info


def _processes(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "ringline_start_time_seconds",
        "Start of the instance, in seconds since 1970.",
        value=snapshot.started,
    )
    labels = ["process", "worker"]
    cpu = CounterMetricFamily(
        "ringline_process_cpu_seconds",
        "Processor time of the process, user and system. The successor of a worker begins at 0.",
        labels=labels,
    )
    memory = GaugeMetricFamily(
        "ringline_process_resident_memory_bytes",
        "Memory of the process in RAM. What several processes share counts for each of them.",
        labels=labels,
    )
    for one in snapshot.processes:
        cpu.add_metric([one.process, one.worker], one.cpu_seconds)
        memory.add_metric([one.process, one.worker], one.memory_bytes)
    yield from (cpu, memory)


def _ports(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["port", "worker"]
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
        "Dropped packets by reason, on the port and the queue that received them; the worker is "
        "empty where the card counts per port. By plugin: dropped by its verdict.",
        labels=["port", "worker", "reason", "by"],
    )
    for port in snapshot.ports:
        for reason, number in port.card_drops.items():
            if reason != NO_DESCRIPTOR:
                drops.add_metric([port.name, "", reason, "card"], number)
        for queue, fields in enumerate(port.queues):
            where = [port.name, str(queue)]
            drops.add_metric([*where, NO_DESCRIPTOR, "card"], port.no_descriptor(queue))
            for field, number in fields.items():
                if field.startswith("drop_"):
                    reason = field.removeprefix("drop_")
                    drops.add_metric([*where, reason, port.dropped_by(reason)], number)
    yield drops


def _cards(snapshot: Snapshot) -> Iterator[Metric]:
    up = GaugeMetricFamily("ringline_link_up", "1 if the port has a link, else 0.", labels=["port"])
    speed = GaugeMetricFamily(
        "ringline_link_speed_bytes_per_second",
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
    descriptors = GaugeMetricFamily(
        "ringline_port_descriptors",
        "Descriptors on the RX and TX descriptor ring of the queue.",
        labels=["port", "worker", "direction"],
    )
    info = InfoMetricFamily(
        "ringline_port",
        "The device of a port, and how it is attached if it is an interface of the kernel.",
        labels=["port"],
    )
    for port in snapshot.ports:
        info.add_metric([port.name], {"device": port.device, "attached": port.attached})
        for queue in range(port.queue_pairs):
            for direction, number in zip(("rx", "tx"), port.descriptors, strict=True):
                descriptors.add_metric([port.name, str(queue), direction], number)
        up.add_metric([port.name], port.link_up)
        speed.add_metric([port.name], port.link_mbps * 125_000)
        for name, number in port.card.items():
            statistics.add_metric([port.name, name], number)
        for name, number in port.wire.items():
            wire.add_metric([port.name, name], number)
    yield from (info, up, speed, statistics, wire, descriptors)


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
    events = CounterMetricFamily(
        "ringline_plugin_events",
        "Counters of plugins; label and value are empty for a counter without a label.",
        labels=[*labels, "label", "value"],
    )
    values = GaugeMetricFamily("ringline_plugin_value", "Gauges of plugins.", labels=labels)
    distributions = HistogramMetricFamily(
        "ringline_plugin_distribution", "Histograms of plugins.", labels=labels
    )
    tables = GaugeMetricFamily(
        "ringline_plugin_table",
        "Tables of plugins, by the label of the row and the name of the column; at most "
        f"{SERIES_MAX} series for each worker.",
        labels=[*labels, "row", "column"],
    )
    for worker in snapshot.workers:
        of = [worker.plugin, str(worker.queue)]
        for metric in worker.metrics:
            if metric.kind == "counter":
                events.add_metric([*of, metric.name, metric.label, metric.of], metric.value)
            else:
                values.add_metric([*of, metric.name], metric.value)
        for histogram in worker.histograms:
            bounds = [2**bucket - 1 for bucket in range(len(histogram.buckets) - 1)]
            buckets = cumulative(bounds, histogram.buckets)
            distributions.add_metric([*of, histogram.name], buckets, histogram.total)
        for table in worker.tables:
            # Two rows may have the same label, but Prometheus refuses a repeated sample: keep
            # the first row.
            rows = {printable(label): numbers for label, numbers in reversed(table.rows)}
            for label, numbers in rows.items():
                for column, number in zip(table.columns, numbers, strict=True):
                    tables.add_metric([*of, table.name, label, column], number)
    yield from (events, values, distributions, tables)
