"""The types of what plugins and their tests use: `make types` checks this file, nobody runs it.

tests/workers/test_public_names.py has the list of all public names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from ringline.workers.api import (
    DROP,
    Batch,
    Counter,
    Counters,
    Gauge,
    Headers,
    Histogram,
    Log,
    Map,
    Meta,
    Option,
    Packet,
    Part,
    ordered,
    Prefixes,
    Table,
    Worker,
    checksum,
    fix_checksums,
    headers,
    include_directory,
    update_checksum,
)
from ringline.workers.testing import Frame, Result, Run, run_plugin


def of_a_worker(worker: Worker) -> None:
    assert_type(worker.queue, int)
    assert_type(worker.ending, bool)
    assert_type(worker.ports, dict[str, int])
    assert_type(worker.options, dict[str, Any])
    assert_type(worker.rehearsal, bool)
    assert_type(worker.log, Log)
    worker.log.info("%d of %s", 3, "x")
    assert_type(worker.drop_reason("acl"), int)
    assert_type(worker.counter("seen"), Counter)
    assert_type(worker.counter("seen", label="protocol", values=("tcp", "udp")), Counters)
    assert_type(worker.gauge("level"), Gauge)
    assert_type(worker.histogram("sizes", 8), Histogram)
    assert_type(worker.table("top", "flow", ["packets"], 3), Table)
    assert_type(worker.state("cells", "u8", (2, 2)), NDArray[Any])
    assert_type(worker.memory("for_c", 64), int)
    assert_type(worker.shared("seen", "u8", 512), tuple[NDArray[Any], NDArray[Any]])


def of_values(counter: Counter, counters: Counters, gauge: Gauge, histogram: Histogram) -> None:
    counter.add()
    assert_type(counter.value, int)
    assert_type(counter.array, NDArray[np.uint64])
    assert_type(counters["tcp"], Counter)
    assert_type(counters.values, tuple[str, ...])
    assert_type(counters.array, NDArray[np.uint64])
    gauge.set(3)
    gauge.set(0.5)
    assert_type(gauge.value, float)
    assert_type(gauge.array, NDArray[np.float64])
    histogram.observe(5)


def of_lookups(worker: Worker) -> None:
    assert_type(worker.time, int)
    table = worker.prefixes("rules", ipv4=10, ipv6=10)
    assert_type(table, Prefixes)
    table.fill([("10.0.0.0/8", 1)])
    table.load(["10.0.0.0/8,permit"], {"permit": 1}, header=False)
    assert_type(table.find4(0x0A000001), int)
    assert_type(table.find6(1 << 61, 1), int)
    flows = worker.map("flows", 10, key=2, value=1, lifetime=60)
    assert_type(flows, Map)
    assert_type(flows.insert((1, 2), 3, 4), int)
    assert_type(flows.find((1, 2)), int)
    assert_type(flows.expire(5), int)


def of_headers(frame: memoryview) -> None:
    found = headers(frame)
    assert_type(found, Headers)
    assert_type(found.src, int)
    assert_type(checksum(frame, 14, 34), int)
    update_checksum(frame, 24, 1, 2)
    assert_type(fix_checksums(frame), int)


def of_packets(batch: Batch, packet: Packet, meta: Meta) -> None:
    for each in batch:
        assert_type(each, Packet)
    packet.verdict = DROP
    assert_type(packet.length, int)
    assert_type(batch.verdicts, NDArray[np.int64])
    assert_type(batch.lengths, NDArray[np.int64])
    assert_type(batch.create(b"", 0), bool)
    assert_type(meta.length, int)


def of_options() -> None:
    Option("limit", int, 10, "packets per second", minimum=1)
    Option("rules", Path)
    Option("ratio", float, None)


def of_tests() -> None:
    run = run_plugin("forward", [b"", Frame(b"", port=1)], options={"rules": Path("x")}, ports=2)
    assert_type(run, Run)
    assert_type(run.results, list[Result])
    assert_type(run.results[0].reason, str | None)
    assert_type(run.drops, dict[str, int])
    assert_type(run.log, list[tuple[str, str]])
    assert_type(include_directory(), str)


def of_a_part(part: Part, packet: Packet, batch: Batch, meta: Meta) -> None:
    assert_type(part.state, dict[str, NDArray[Any]])
    assert_type(part.tables["top"], list[tuple[str, list[int]]])
    assert_type(Part.unpack(part.pack()), Part)
    assert_type(ordered(rows=1)(lambda a, b: a)(part, part), Part)
    assert_type(packet.wire_length, int)
    assert_type(batch.wire_lengths, NDArray[np.int64])
    assert_type(meta.wire_length, int)
