"""The clock of every time stamp in shared memory (clock.h)."""

from __future__ import annotations

from ringline.shm._shm import lib


def ticks() -> int:
    """The current time in ticks. All processes of this machine share its origin."""
    now: int = lib.rl_now()
    return now


def ticks_per_second() -> float:
    """The rate of the clock. The first call of a process measures it, which takes 2 ms."""
    rate: float = lib.rl_ticks_per_second()
    return rate
