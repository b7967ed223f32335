"""Limit the packets per second of each IPv4 source address: one token bucket for each.

A packet takes a token. Tokens come back at `rate` per second, up to `burst`. A bucket is stored as
the time at which it is full again: each packet moves that time by the interval between two tokens,
and a bucket that is full needs no line in the table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ringline.workers.api import DROP, Counter, Option, Worker, field, packet_function
from ringline.workers.plugins.forward import MAP, outputs

PROBES = 8


class State(NamedTuple):
    source: Any  # the address of each bucket
    full: Any  # when the bucket is full again, nanoseconds since 1970
    outputs: Any  # the verdict by input port
    token: int  # nanoseconds between two tokens
    burst: int  # nanoseconds until an empty bucket is full
    over_limit: Counter
    without_bucket: Counter


def _setup(worker: Worker) -> State:
    lines = worker.options["addresses"]
    token = 1_000_000_000 // worker.options["rate"]
    return State(
        worker.state("source", np.int64, lines),
        worker.state("full", np.int64, lines),
        np.array(outputs(worker), np.int64),
        token,
        token * worker.options["burst"],
        worker.counter("over_limit"),
        worker.counter("without_bucket"),
    )


@packet_function(
    setup=_setup,
    options=[
        Option("rate", int, 1000, "packets per second", minimum=1, maximum=1_000_000_000),
        Option("burst", int, 100, "packets at once after a pause", minimum=1, maximum=1_000_000),
        Option("addresses", int, 65536, "lines of the table of buckets", minimum=16),
        MAP,
    ],
)
def rate_limit(frame: Any, meta: Any, state: Any) -> int:
    """Drop the packet if its source address has no token left; else forward it."""
    port: int = state.outputs[meta.port]
    if meta.length < 34 or field(frame, 12, 2) != 0x0800:
        return port
    source, line = field(frame, 26, 4), -1
    first = source * 0x5BD1E995 >> 16  # spreads the addresses over the lines
    for probe in range(first, first + PROBES):
        there = probe % len(state.source)
        if state.source[there] == source:
            line = there
            break
        if line < 0 and state.full[there] <= meta.time:  # the bucket of another, full again
            line = there
    if line < 0:
        state.without_bucket[0] += 1
        return port
    full = max(state.full[line], meta.time) + state.token
    if full - meta.time > state.burst:
        state.over_limit[0] += 1
        return DROP
    state.source[line], state.full[line] = source, full
    return port
