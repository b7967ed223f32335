"""The clock of every time stamp in shared memory (clock.h)."""

from __future__ import annotations

from ringline.shm._shm import lib


def ticks() -> int:
    """Now, in ticks since some moment that all processes of this machine share."""
    now: int = lib.rl_now()
    return now


def ticks_per_second() -> float:
    """The clock's rate. The first call of a process measures it, which takes 2 ms."""
    rate: float = lib.rl_ticks_per_second()
    return rate
