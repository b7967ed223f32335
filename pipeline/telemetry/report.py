"""A Snapshot as JSON: the report of a run and the output of `ringline status --json`.

For each port: received = forwarded + the sum of `drops` + in_flight. Packets that the
card dropped (`card_drops`) do not count as received. `balance` has the residual of each
equation of the books, 0 when the equation holds.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import select
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.telemetry.flaws import how_it_ended
from ringline.pipeline.telemetry.snapshot import PortSnapshot, Snapshot, WorkerSnapshot
from ringline.shm.errors import EnvironmentLacks, RinglineError, UsageError, reason_of

READER_SECONDS = deadlines.REPORT_READER  # at the end of a run, when the report goes to a pipe

# The first three keys of a report: no other program writes them in this order.
_BEGIN = re.compile(rb'\{\s*"ringline": "[^"]*",\s*"name": "[\w-]*",\s*"state": "')
_BEGIN_BYTES = 1000


def lay_out(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as JSON values."""
    return {
        "ringline": snapshot.version,
        "name": snapshot.name,
        "state": snapshot.state,
        "started": _iso(snapshot.started),
        "taken": _iso(snapshot.taken),
        "seconds": round(snapshot.seconds, 3),
        "metrics": snapshot.metrics_url,
        "ports": {port.name: _port(port, snapshot) for port in snapshot.ports},
        "workers": [_worker(worker) for worker in snapshot.workers],
        "lanes": [snapshot.lane.counters],
        "drops": snapshot.drops,
        "buffers": snapshot.holders(),
        "balance": snapshot.balance,
    }


def of_a_run(
    snapshot: Snapshot,
    error: RinglineError | None,
    plugin_reports: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    """The report of a run that has ended.

    `plugin_reports` has the last Report message of each worker (shm/messages.py), by queue.
    """
    report = lay_out(snapshot)
    report["ended"] = report.pop("taken")
    report["exit"] = {
        "code": error.exit_code if error else 0,
        "reason": str(error) if error else how_it_ended(snapshot),
    }
    for worker in report["workers"]:
        worker["report"] = plugin_reports.get(worker["queue"], {})
    return report


class ReportFile:
    """The file of `--report`, opened before anything is started.

    An older report is replaced only when there is room for the new one. Raises UsageError
    when the file cannot be written, or exists and is neither empty nor a report of ringline
    (tests/pipeline/telemetry/test_report.py: test_what_is_no_report_is_not_replaced).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._new = not os.path.lexists(path)
        try:
            # O_NONBLOCK: otherwise opening a pipe waits for a reader, and so does writing.
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise UsageError(
                f"the report cannot be written to {path}: {reason_of(error)}"
            ) from None
        if not _may_be_replaced(self._fd):
            os.close(self._fd)
            raise UsageError(
                f"the report cannot be written to {path}: it exists and is not a report of "
                "ringline; remove it, or name another file"
            )
        self._written = False

    def write(self, report: Mapping[str, Any]) -> None:
        """Write the report. Raises EnvironmentLacks when that fails, as on a full disk."""
        data = (json.dumps(report, indent=2, default=str) + "\n").encode()
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._make_room(len(data))
            self._write_all(data)
            self._written = True
        except OSError as error:
            raise EnvironmentLacks(
                f"the report cannot be written to {self.path}: {reason_of(error)}"
            ) from None

    def _write_all(self, data: bytes) -> None:
        """Write, and wait READER_SECONDS at most for each piece that a reader takes."""
        rest = memoryview(data)
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                if not ready.poll(READER_SECONDS * 1000):
                    raise TimeoutError(errno.ETIMEDOUT, "nobody reads it") from None

    def _make_room(self, size: int) -> None:
        """Reserve `size` bytes before the old report is overwritten, so that none is lost."""
        before = os.fstat(self._fd).st_size
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError:
            os.ftruncate(self._fd, before)
            raise
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        """Close the file. Remove it when it was created for this run and not written."""
        os.close(self._fd)
        if self._new and not self._written:
            os.unlink(self.path)


def _may_be_replaced(fd: int) -> bool:
    """Whether the file is no regular file, is empty, or begins as `lay_out` does."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:  # `fd` cannot be read
            begin = file.read(_BEGIN_BYTES)
    except OSError:
        return False
    return not begin or _BEGIN.match(begin) is not None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _port(port: PortSnapshot, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "device": port.device,
        "attached": port.attached,
        "mac": port.mac,
        "link": {"up": port.link_up, "mbps": port.link_mbps},
        "received": {"packets": port.total("rx_packets"), "bytes": port.total("rx_bytes")},
        "transmitted": {"packets": port.total("tx_packets"), "bytes": port.total("tx_bytes")},
        "forwarded": port.total("transmitted"),
        "in_flight": snapshot.in_flight.get(port.name, 0),
        "drops": port.drops,
        "card_drops": port.card_drops,
        "card": port.card,
        "wire": port.wire,
        "faults": list(port.faults),
        "queues": list(port.queues),
    }


def _worker(worker: WorkerSnapshot) -> dict[str, Any]:
    return {
        "queue": worker.queue,
        "plugin": worker.plugin,
        "state": worker.state,
        "up": worker.up,
        "pid": worker.pid,
        "generation": worker.generation,
        "restarts": worker.restarts,
        "heartbeat_age": worker.heartbeat_age,
        "ring_in": worker.ring_in,
        "ring_out": worker.ring_out,
        "counters": worker.counters,
        "slot": worker.slot,
        "errors": worker.errors,
        "bad_references": worker.refusals,
        "latency_seconds": {
            name: latency_quantile(worker.latency, quantile)
            for name, quantile in (("median", 0.5), ("p99", 0.99))
        },
        "metrics": _metrics(worker),
        "drop_reasons": list(worker.reasons),
        "version": worker.version,
        "histograms": {
            histogram.name: {"sum": histogram.total, "buckets": list(histogram.buckets)}
            for histogram in worker.histograms
        },
        "tables": {
            table.name: [
                {table.label: label, **dict(zip(table.columns, numbers, strict=True))}
                for label, numbers in table.rows
            ]
            for table in worker.tables
        },
    }


def _metrics(worker: WorkerSnapshot) -> dict[str, Any]:
    """The counters and gauges by name; of a counter with a label, the counts by its values."""
    values: dict[str, Any] = {}
    for metric in worker.metrics:
        if metric.label:
            values.setdefault(metric.name, {})[metric.of] = metric.value
        else:
            # JSON has neither "not a number" nor infinity.
            finite = math.isfinite(metric.value)
            values[metric.name] = metric.value if finite else str(metric.value)
    return values


def latency_quantile(buckets: tuple[int, ...], quantile: float) -> float | None:
    """The upper bound, in seconds, of the bucket with the quantile; None without samples."""
    wanted = quantile * sum(buckets)
    reached = 0
    for bucket, number in enumerate(buckets):
        reached += number
        if number and reached >= wanted:
            return float(2**bucket * 64e-9)
    return None
