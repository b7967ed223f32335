"""A snapshot as one line of key=value pairs, for programs that read the output of a run.

No key and no value has a space. README, "Output for programs", lists the keys with their units.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ringline.pipeline.telemetry.snapshot import PortSnapshot, Snapshot, WorkerSnapshot
from ringline.pipeline.terminal.table import Rates, Span


def line(before: Snapshot | None, now: Snapshot, span: Span | None = None) -> str:
    """The pairs of `now`, with rates since `before`. A rate that is not known has no pair."""
    return " ".join(f"{key}={value}" for key, value in _pairs(Rates(before, now), span))


def _pairs(rates: Rates, span: Span | None) -> Iterator[tuple[str, str]]:
    now = rates.now
    yield "time", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now.taken))
    yield "seconds", f"{now.seconds if span is None else now.clock - span.since:.0f}"
    if span is not None:
        yield "of", f"{span.seconds:g}"
    yield "state", _word(now.state)
    for index, port in enumerate(now.ports):
        yield from _port(rates, index, port)
    for index, worker in enumerate(now.workers):
        yield from _worker(rates, index, worker)
    wrong = [name for name, residual in now.balance.items() if residual]
    yield "books", f"off:{','.join(wrong)}" if wrong else "balanced"


def _port(rates: Rates, index: int, port: PortSnapshot) -> Iterator[tuple[str, str]]:
    key = f"port.{port.name}"
    yield f"{key}.link_mbits", str(port.link_mbps if port.link_up else 0)
    for way in ("rx", "tx"):
        packets, bytes_ = rates.port(index, f"{way}_packets"), rates.port(index, f"{way}_bytes")
        if packets is not None and bytes_ is not None:
            yield f"{key}.{way}_mpps", f"{packets / 1e6:.6f}"
            yield f"{key}.{way}_gbits", f"{bytes_ * 8 / 1e9:.6f}"
    for reason, lost in (port.card_drops | port.drops).items():
        if lost:
            yield f"{key}.drop.{reason}", str(lost)


def _worker(rates: Rates, index: int, worker: WorkerSnapshot) -> Iterator[tuple[str, str]]:
    key = f"worker.{worker.queue}"
    yield f"{key}.state", _word(worker.state)
    packets = rates.worker(index, "packets")
    busy, idle = rates.worker(index, "busy_seconds"), rates.worker(index, "idle_seconds")
    if packets is not None:
        yield f"{key}.mpps", f"{packets / 1e6:.6f}"
    if busy is not None and idle is not None and busy + idle > 0:
        yield f"{key}.busy_percent", f"{100 * busy / (busy + idle):.0f}"
    yield f"{key}.in", str(worker.ring_in)
    yield f"{key}.out", str(worker.ring_out)
    yield f"{key}.restarts", str(worker.restarts)
    yield f"{key}.errors", str(sum(worker.errors.values()))


def _word(state: str) -> str:
    return state.replace(" ", "_")
