"""Two loops in two processes: the bare ones, and those over the rings of ringline."""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import subprocess
import sys
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


# Measures a pair for a minute, and prints the id of the other process.
BENCHMARK = """
import sys
from ringline.pipeline.bench.pair import run_pair
from ringline.pipeline.bench.pair import BARE_RING as pair
from ringline.shm.clock import ticks_per_second
given = {"bulk": 1, "fewest": 1, "ticks": int(60 * ticks_per_second())}
tell = lambda memory, other: print(other, flush=True)
run_pair((int(sys.argv[1]), int(sys.argv[2])), pair.name, given, pair.size, tell)
"""


@pytest.fixture
def benchmark() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program that measures a pair, in a session of its own, and the id of its other side."""
    command = [sys.executable, "-P", "-c", BENCHMARK, *map(str, CPUS)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as bench:
        try:
            assert bench.stdout is not None
            yield bench, int(bench.stdout.readline())
        finally:
            bench.kill()


def test_the_other_side_ends_with_its_benchmark(
    benchmark: tuple[subprocess.Popen[str], int],
) -> None:
    bench, other = benchmark
    end = os.pidfd_open(other)
    try:
        bench.kill()
        assert bench.stderr is not None
        assert bench.stderr.read() == ""
        assert select.select([end], [], [], 2)[0], "it is killed and does not wait for its peer"
    finally:
        os.close(end)


def test_keys_do_not_reach_the_other_side(benchmark: tuple[subprocess.Popen[str], int]) -> None:
    bench, other = benchmark
    assert os.getpgid(bench.pid) == bench.pid
    assert os.getpgid(other) != bench.pid


@pytest.mark.parametrize("late", [False, True])
def test_a_side_that_ends_early_is_reported(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """Such a benchmark once printed nothing and ended with exit code 0."""
    loops = {"ping": (lambda: 0, None)} if late else {}
    monkeypatch.setattr(pair, "_loops", lambda memory, given: loops)
    # The other process knows no such loop, or is killed before it has told its time.
    name = "ping" if late else "nothing"

    def kill(memory: mmap.mmap, other: int) -> None:
        os.kill(other, signal.SIGKILL)

    how = "signal 9" if late else "exit code 1"
    sentence = rf"other process of `{name}` ended early \({how}\)"
    with pytest.raises(EnvironmentLacks, match=sentence):
        run_pair(CPUS, name, {"rounds": (1 << 32) - 1}, 4096, kill)
