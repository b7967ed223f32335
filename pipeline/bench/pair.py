"""Run two loops in two processes over shared memory, each on its own CPU.

The other process is a new Python, not a fork, and gets the memory as a file
descriptor. Each side gives up after TIMEOUT seconds without progress of the other.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.configuration import deadlines
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

TIMEOUT = deadlines.BENCH_PROGRESS

Loops = dict[str, tuple[Any, Any]]


def _loops(memory: Any, given: dict[str, int]) -> Loops:
    """By name: the loop of this side and the loop of the other side."""
    timeout = int(TIMEOUT * ticks_per_second())
    bare = ffi.cast("struct rl_bare_ring *", memory)
    back = ffi.cast("struct rl_bare_ring *", memory + ffi.sizeof("struct rl_bare_ring"))
    frames = memory + 2 * ffi.sizeof("struct rl_bare_ring")
    ours = ffi.cast("struct rl_ring *", memory)
    line = ffi.cast("uint32_t *", memory)
    count, bulk = given.get("count", 0), given.get("bulk", 0)
    rounds, buffers = given.get("rounds", 0), given.get("buffers", 0)
    return {
        "ping": (
            lambda: lib.rl_limit_ping(line, 0, rounds, timeout),
            lambda: lib.rl_limit_ping(line, 1, rounds, timeout),
        ),
        "bare ring": (
            lambda: lib.rl_limit_consume(bare, count, bulk, timeout),
            lambda: lib.rl_limit_produce(bare, count, bulk, timeout),
        ),
        "our ring": (
            lambda: lib.rl_measure_consume(ours, count, bulk, timeout),
            lambda: lib.rl_measure_produce(ours, count, bulk, timeout),
        ),
        "bare pipeline": (
            lambda: lib.rl_limit_here(bare, back, count, buffers, timeout),
            lambda: lib.rl_limit_there(bare, back, frames, count, timeout),
        ),
    }


def run_pair(cpus: tuple[int, ...], name: str, given: dict[str, int], size: int) -> tuple[int, int]:
    """Run the pair `name` over `size` bytes; the ticks of this and of the other side.

    Raises EnvironmentLacks when a side made no progress: its CPU is busy.
    """
    fd = os.memfd_create("ringline-bench")
    try:
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as memory, ffi.from_buffer(memory) as start:
            command = [sys.executable, "-P", "-m", __name__]
            with subprocess.Popen(
                [*command, str(fd), str(size), str(cpus[1]), name, json.dumps(given)],
                pass_fds=[fd],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as there:
                assert there.stdin is not None
                assert there.stdout is not None
                try:
                    there.stdout.readline()  # the other side is ready
                    os.sched_setaffinity(0, {cpus[0]})
                    ours, _ = _loops(ffi.cast("uint8_t *", start), given)[name]
                    there.stdin.write(b"go\n")
                    there.stdin.close()
                    ticks = ours()
                    their_ticks = int(there.stdout.readline() or 0)
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


def main() -> None:
    """The other side: the entry point of the second process."""
    fd, size, cpu, name, given = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    with mmap.mmap(int(fd), int(size)) as memory:
        start = ffi.from_buffer(memory)
        _, theirs = _loops(ffi.cast("uint8_t *", start), json.loads(given))[name]
        print("ready", flush=True)
        sys.stdin.readline()
        print(theirs(), flush=True)
        ffi.release(start)


if __name__ == "__main__":
    main()
