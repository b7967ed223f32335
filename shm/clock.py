"""The clock of every time stamp in shared memory (clock.h)."""

from __future__ import annotations

import time

from ringline.shm._shm import lib


def ticks() -> int:
    """The current time in ticks. All processes of this machine share its origin."""
    now: int = lib.rl_now()
    return now


def ticks_per_second() -> float:
    """The rate of the clock. The first call of a process measures it, which takes 2 ms."""
    rate: float = lib.rl_ticks_per_second()
    return rate


def wall_offset() -> int:
    """The time since 1970 minus CLOCK_MONOTONIC, in nanoseconds, as it is now.

    The best of three readings: between the two clocks this process may lose its CPU.
    """
    readings = []
    for _ in range(3):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]
