"""Packet functions that `ringline bench plugin` measures. Each has a bare loop in C that does the
same (pipeline/bench/limits.c)."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ringline.workers.api import (
    DROP,
    Map,
    Prefixes,
    field,
    headers,
    packet_function,
    set_field,
    update_checksum,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ringline.workers.api import Worker

LIFE = 22  # offset of the time to live of an IPv4 header after an Ethernet header without a tag
CHECKSUM = 24


@packet_function
def nothing(frame: Any, meta: Any) -> int:
    """What the functions below do beside their work."""
    if len(frame) < 34:
        return DROP
    port: int = meta.port
    return port


@packet_function
def header_view(frame: Any, meta: Any) -> int:
    """Find the headers, and drop the packet if addresses, ports and protocol cancel out."""
    h = headers(frame)
    if h.src ^ h.dst ^ h.sport ^ h.dport ^ h.protocol == 0:
        return DROP
    port: int = meta.port
    return port


@packet_function
def checksum_update(frame: Any, meta: Any) -> int:
    """Count the time to live down, and update the checksum of the IPv4 header."""
    if len(frame) < 34:
        return DROP
    before = field(frame, LIFE, 2)
    after = (before - 0x100) & 0xFFFF
    set_field(frame, LIFE, 2, after)
    update_checksum(frame, CHECKSUM, before, after)
    port: int = meta.port
    return port


PREFIXES = 100_000
ENTRIES = 1_000_000
# The share of the prefixes with each length: most are /24, as in the Internet's tables.
LENGTHS = {24: 60, 23: 10, 22: 12, 21: 5, 20: 5, 19: 3, 18: 1, 17: 1, 16: 3}
# The next number of a linear congruential generator (Knuth, MMIX); the loops in C have the same.
# Unsigned: LLVM may assume that sums and products of signed numbers do not overflow.
FACTOR, STEP = np.uint64(6364136223846793005), np.uint64(1442695040888963407)


class Table(NamedTuple):
    """The state of `prefix_lookup`."""

    table: Prefixes
    last: NDArray[np.int64]  # the last number of the generator


class Entries(NamedTuple):
    """The state of `map_lookup`."""

    entries: Map
    last: NDArray[np.int64]


def _table(worker: Worker) -> Table:
    table = worker.prefixes("table", ipv4=PREFIXES)
    if not len(table) and not worker.rehearsal:
        chance = random.Random(1)
        rows: dict[str, int] = {}
        while len(rows) < PREFIXES:
            [length] = chance.choices(list(LENGTHS), list(LENGTHS.values()))
            first = chance.getrandbits(length) << (32 - length)
            numbers = first >> 24, first >> 16 & 255, first >> 8 & 255, first & 255
            rows[f"{'.'.join(map(str, numbers))}/{length}"] = chance.randrange(256)
        table.fill(rows.items())
    return Table(table, np.ones(1, np.int64))


@packet_function(setup=_table)
def prefix_lookup(frame: Any, meta: Any, state: Any) -> int:
    """Look up a random IPv4 address among 100,000 prefixes."""
    number = np.int64(np.uint64(state.last[0]) * FACTOR + STEP)
    state.last[0] = number
    if state.table.find4(number >> 32) == 256:
        return DROP
    port: int = meta.port
    return port


@njit
def fill(entries: Any, count: int) -> None:
    """Insert the keys 0 to `count` - 1."""
    for key in range(count):
        entries.insert(key, key)


def _entries(worker: Worker) -> Entries:
    from ringline.workers.tiers import jit_lookup  # noqa: F401  # `fill` takes a map

    entries = worker.map("entries", ENTRIES)
    if not len(entries) and not worker.rehearsal:
        fill(entries, ENTRIES)
    return Entries(entries, np.ones(1, np.int64))


@packet_function(setup=_entries)
def map_lookup(frame: Any, meta: Any, state: Any) -> int:
    """Find a random key in a map of 1,000,000 entries."""
    number = np.int64(np.uint64(state.last[0]) * FACTOR + STEP)
    state.last[0] = number
    if state.entries.find((number >> 32 & 0xFFFFFFFF) * ENTRIES >> 32) < 0:
        return DROP
    port: int = meta.port
    return port
