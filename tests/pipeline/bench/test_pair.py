"""Two loops in two processes: the bare ones, and those over the rings of ringline."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator

import pytest

from ringline.pipeline.bench import pair
from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.pair import (
    BARE_PIPELINE,
    BARE_RING,
    OUR_RING,
    Pair,
    measure_pair,
    run_pair,
)
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

# On one processor the two sides take turns, which is slow but works.
CPUS = tuple((sorted(os.sched_getaffinity(0)) * 2)[:2])


@pytest.fixture(autouse=True)
def unpinned() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)  # `run_pair` pins this process


@pytest.mark.parametrize("which", [BARE_RING, OUR_RING, BARE_PIPELINE], ids=lambda each: each.name)
def test_a_pair_moves_references(which: Pair) -> None:
    found = measure_pair(CPUS, which, seconds=0.3)
    assert sum(found.growth["moved"]) > 1000


@pytest.mark.parametrize(("bulk", "fewest"), [(1, 1), (7, 1), (64, 1), (7, 7), (64, 64)])
def test_every_reference_arrives(bulk: int, fewest: int) -> None:
    """The consumer has at most what the producer has, and what is on the ring is missing."""
    ticks = int(0.1 * ticks_per_second())
    for which in (BARE_RING, OUR_RING):
        sizes = {"bulk": bulk, "fewest": fewest, "ticks": ticks}
        taken, given = run_pair(CPUS, which.name, sizes, which.size)
        assert 0 < taken <= given <= taken + lib.RL_RING_CAPACITY


def test_the_bare_pipeline_swaps_the_addresses_of_its_frames() -> None:
    start = 2 * ffi.sizeof("struct rl_bare_ring") + lib.RL_BUFFER_HEADROOM
    seen = set()

    def look(memory: mmap.mmap, other: int) -> None:
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            seen.add(memory[start : start + 12])
            time.sleep(0)

    given = {"ticks": int(0.2 * ticks_per_second())}
    back, there = run_pair(CPUS, BARE_PIPELINE.name, given, BARE_PIPELINE.size, look)
    assert 0 < back <= there <= back + lib.RL_RING_CAPACITY
    written = bytes.fromhex("020202020202020202020303")
    assert written[6:] + written[:6] in seen


def test_a_counter_of_32_bits_may_overflow() -> None:
    memory = bytearray(8)
    moved = pair._Moved(memory, 4)  # type: ignore[arg-type]
    for now, whole in ((10, 10), (0xFFFFFFFF, 0xFFFFFFFF), (5, 0x100000005)):
        struct.pack_into("<I", memory, 4, now)
        assert moved.read() == {"moved": whole}


def test_a_side_without_its_peer_gives_up() -> None:
    ring = ffi.new("struct rl_bare_ring *")
    second = int(ticks_per_second())
    assert lib.rl_bare_consume(ring, 32, 1, second, second // 100) == 0
    assert lib.rl_bare_produce(ring, 32, 1, second, second // 100) == 0
    ours = ffi.new("struct rl_ring *")
    assert lib.rl_measure_consume(ours, 32, second, second // 100) == 0


def test_a_pair_that_makes_no_progress_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_loops", lambda memory, given: {"ping": (lambda: 0, None)})
    with pytest.raises(EnvironmentLacks, match="the two sides of `ping` did not run at the same"):
        run_pair(CPUS, "ping", {"rounds": 1}, 4096)
