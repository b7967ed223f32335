"""The metrics of workers, and what they share with those of ports: counters by the field of a C
struct.
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

from ringline.pipeline.configuration.config import RING_CAPACITY
from ringline.pipeline.telemetry.snapshot import Snapshot, WorkerSnapshot
from ringline.shm.text import printable

# Field -> (name between `ringline_<block>_` and `_total`, description). None: the field
# is exported in another way.
Names = Mapping[str, tuple[str, str] | None]

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

# Latency buckets: bucket b ends at 2^b x 64 ns. Those above 1.07 s are exported as one.
LATENCY_BASE = 64e-9
EXPORTED_BUCKETS = 25

HELP_EXTRA = "A counter of the packet path without a description."

# The states of a worker (supervisor/worker_states.py), without blanks.
STATES = (
    "idle",
    "preparing",
    "setting_up",
    "running",
    "aborting",
    "killing",
    "waiting_to_restart",
    "stopping",
    "stopped",
    "given_up",
)


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


def _gauge(
    snapshot: Snapshot, name: str, of: str, value: Callable[[WorkerSnapshot], float | None]
) -> Metric:
    gauge = GaugeMetricFamily(f"ringline_worker_{name}", of, labels=["worker"])
    for worker in snapshot.workers:
        number = value(worker)
        if number is not None:
            gauge.add_metric([str(worker.queue)], number)
    return gauge


def workers(snapshot: Snapshot) -> Iterator[Metric]:
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
    capacity = GaugeMetricFamily(
        "ringline_ring_capacity_references",
        "Most packet references that the ring holds.",
        labels=["worker", "ring"],
    )
    yield _states(snapshot)
    info = InfoMetricFamily(
        "ringline_worker",
        "Plugin of the worker and its __version__; the version is empty if it has none.",
        labels=labels,
    )
    for of, worker in rows:
        info.add_metric(of, {"plugin": worker.plugin, "version": printable(worker.version)})
        for ring in ("in", "out"):
            capacity.add_metric([*of, ring], RING_CAPACITY)
        restarts.add_metric(of, worker.restarts)
        batches.add_metric(of, int(worker.counters["batches"]), worker.counters["packets"])
        for reason, number in worker.errors.items():
            errors.add_metric([*of, reason], number)
        occupancy.add_metric([*of, "in"], worker.ring_in)
        occupancy.add_metric([*of, "out"], worker.ring_out)
        latency.add_metric(of, _latency(worker), worker.slot["latency_seconds"])
        for cause, number in worker.refusals.items():
            refused.add_metric([*of, cause], number)
    yield from (info, restarts, batches, errors, refused, occupancy, capacity, latency)


def _states(snapshot: Snapshot) -> Metric:
    """One sample for each state that a worker can have."""
    family = GaugeMetricFamily(
        "ringline_worker_state",
        "1 for the state of the worker, 0 for each other state.",
        labels=["worker", "state"],
    )
    for worker in snapshot.workers:
        now = worker.state.replace(" ", "_")
        for state in dict.fromkeys((*STATES, now)):
            family.add_metric([str(worker.queue), state], state == now)
    return family


def _latency(worker: WorkerSnapshot) -> list[tuple[str, float]]:
    """The latency histogram as (upper bound in seconds, cumulative count) pairs."""
    bounds = [LATENCY_BASE * 2**bucket for bucket in range(EXPORTED_BUCKETS)]
    return cumulative(bounds, worker.latency)


def cumulative(bounds: Iterable[float], buckets: tuple[int, ...]) -> list[tuple[str, float]]:
    result: list[tuple[str, float]] = []
    total = 0
    for bound, number in zip(bounds, buckets, strict=False):
        total += number
        result.append((repr(float(bound)), total))
    result.append(("+Inf", sum(buckets)))
    return result
