"""Run two loops in two processes over shared memory, each on its own CPU.

The other process is a new Python, not a fork, and gets the memory as a file
descriptor. Each side gives up after TIMEOUT seconds without progress of the other. A thread of
this process observes the memory.

Guarantees (tests in tests/pipeline/bench/test_pair.py):
 - the other side ends with this process, and keys pressed in a terminal do not reach it
   (test_the_other_side_ends_with_its_benchmark, test_keys_do_not_reach_the_other_side)
 - when it ends early, one sentence says so (test_a_side_that_ends_early_is_reported)
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import SECONDS, Windows, sample
from ringline.pipeline.configuration import deadlines
from ringline.shm._shm import lib as shm
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

TIMEOUT = deadlines.BENCH_PROGRESS
MARGIN = 0.2  # seconds that a pair runs longer than it is observed

Loops = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Pair:
    """Two loops that move references for some time: their name, bytes of memory, and where the
    observer finds how many were moved, a number of 32 bits."""

    name: str
    size: int
    moved: int


_BARE = ffi.sizeof("struct rl_bare_ring")
_FRAMES = lib.RL_RING_CAPACITY * lib.RL_BUFFER_STRIDE
# `producer` is the first field of a ring. The bare pipeline has a second one, back to this side.
BARE_RING = Pair("bare ring", _BARE, ffi.offsetof("struct rl_bare_ring", "producer"))
OUR_RING = Pair(
    "our ring", ffi.sizeof("struct rl_ring"), ffi.offsetof("struct rl_ring", "producer")
)
BARE_PIPELINE = Pair("bare pipeline", 2 * _BARE + _FRAMES, _BARE)


def _loops(memory: Any, given: dict[str, int]) -> Loops:
    """By name: the loop of this side and the loop of the other side."""
    timeout = int(TIMEOUT * ticks_per_second())
    bare = ffi.cast("struct rl_bare_ring *", memory)
    back = ffi.cast("struct rl_bare_ring *", memory + _BARE)
    frames = memory + 2 * _BARE
    ours = ffi.cast("struct rl_ring *", memory)
    line = ffi.cast("uint32_t *", memory)
    bulk, fewest, ticks, rounds = (
        given.get(name, 0) for name in ("bulk", "fewest", "ticks", "rounds")
    )
    return {
        "ping": (
            lambda: lib.rl_limit_ping(line, 0, rounds, timeout),
            lambda: lib.rl_limit_ping(line, 1, rounds, timeout),
        ),
        BARE_RING.name: (
            lambda: lib.rl_bare_consume(bare, bulk, fewest, ticks, timeout),
            lambda: lib.rl_bare_produce(bare, bulk, fewest, ticks, timeout),
        ),
        OUR_RING.name: (
            lambda: lib.rl_measure_consume(ours, bulk, ticks, timeout),
            lambda: lib.rl_measure_produce(ours, bulk, ticks, timeout),
        ),
        BARE_PIPELINE.name: (
            lambda: lib.rl_bare_here(bare, back, frames, ticks, timeout),
            lambda: lib.rl_bare_there(bare, back, frames, ticks, timeout),
        ),
    }


def measure_pair(
    cpus: tuple[int, ...],
    pair: Pair,
    *,
    seconds: float = SECONDS,
    bulk: int = 32,
    fewest: int = 1,
) -> Windows:
    """Run a pair for `seconds`; the counter `moved` is the references that it moved.

    `bulk` and `fewest` are those of rl_bare_produce (bare.h); our ring always moves what there is.

    Raises EnvironmentLacks when a side made no progress: its CPU is busy.
    """
    found: list[Windows] = []

    def observe(memory: mmap.mmap, other: int) -> None:
        watch = Watch(cpus, {"one side": os.getpid(), "other side": other})
        found.append(sample(_Moved(memory, pair.moved).read, seconds, watch))

    ticks = int((seconds + MARGIN) * ticks_per_second())
    given = {"bulk": bulk, "fewest": fewest, "ticks": ticks}
    run_pair(cpus, pair.name, given, pair.size, observe)
    return found[0]


class _Moved:
    """A counter of 32 bits in shared memory, which may overflow once between two readings."""

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory, self._at = memory, at
        self._last = self._whole = 0

    def read(self) -> dict[str, int]:
        (now,) = struct.unpack_from("<I", self._memory, self._at)
        self._whole += (now - self._last) & 0xFFFFFFFF
        self._last = now
        return {"moved": self._whole}


def run_pair(
    cpus: tuple[int, ...],
    name: str,
    given: dict[str, int],
    size: int,
    observe: Callable[[mmap.mmap, int], None] | None = None,
) -> tuple[int, int]:
    """Run the pair `name` over `size` bytes; what this side and the other side returned.

    `observe` runs meanwhile in a thread: it gets the memory and the process id of the other side.
    Raises EnvironmentLacks when a side made no progress: its CPU is busy.
    """
    fd = os.memfd_create("ringline-bench")
    try:
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as memory, ffi.from_buffer(memory) as start:
            command = [sys.executable, "-P", "-m", __name__]
            with subprocess.Popen(
                [
                    *command,
                    str(os.getpid()),
                    str(fd),
                    str(size),
                    str(cpus[1]),
                    name,
                    json.dumps(given),
                ],
                pass_fds=[fd],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            ) as there:
                assert there.stdin is not None
                assert there.stdout is not None
                observer = threading.Thread(
                    target=observe or (lambda memory, other: None), args=(memory, there.pid)
                )
                try:
                    if not there.stdout.readline():  # else it is ready
                        raise _ended_early(name, there)
                    os.sched_setaffinity(0, {cpus[0]})
                    ours, _ = _loops(ffi.cast("uint8_t *", start), given)[name]
                    try:
                        there.stdin.write(b"go\n")
                        there.stdin.close()
                    except BrokenPipeError:
                        raise _ended_early(name, there) from None
                    observer.start()
                    try:
                        ticks = ours()
                    finally:
                        observer.join()
                    told = there.stdout.readline()
                    if not told:
                        raise _ended_early(name, there)
                    their_ticks = int(told)
                finally:
                    there.kill()
    finally:
        os.close(fd)
    if not ticks or not their_ticks:
        raise EnvironmentLacks(
            f"the two sides of `{name}` did not run at the same time: CPUs "
            f"{cpus[0]} and {cpus[1]} are busy with other work"
        )
    return ticks, their_ticks


def _ended_early(name: str, there: subprocess.Popen[bytes]) -> EnvironmentLacks:
    code = there.wait()  # it has closed its output, so it ends
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    return EnvironmentLacks(f"bench: the other process of `{name}` ended early ({how}): try again")


def main() -> None:
    """The other side: the entry point of the second process."""
    parent, fd, size, cpu, name, given = sys.argv[1:]
    if shm.rl_die_with_parent(signal.SIGKILL, int(parent)) != 0:
        return
    os.sched_setaffinity(0, {int(cpu)})
    with mmap.mmap(int(fd), int(size)) as memory, ffi.from_buffer(memory) as start:
        _, theirs = _loops(ffi.cast("uint8_t *", start), json.loads(given))[name]
        print("ready", flush=True)
        sys.stdin.readline()
        print(theirs(), flush=True)


if __name__ == "__main__":
    main()
