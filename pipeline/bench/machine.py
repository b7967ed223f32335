"""The machine as it is in this minute, and which of its runs were quiet.

Virtual machines lend their processors to others: a loop of pure arithmetic takes
up to 1.8 times as long in a bad moment. And they move them: a cache line's way
between two that were near takes five times as long when one is on another chip.
So every benchmark looks at both before and after each run, and only runs in good
moments count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ringline.pipeline.bench._bench import lib
from ringline.pipeline.bench.pair import run_pair
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

ROUNDS = 2_000_000  # of arithmetic: some 3 ms
PINGS = 100_000
QUIET = 1.08  # a run counts when its arithmetic took at most this times the best seen,
NEAR = 2.0  # and a cache line's way at most this times
TRIES_PER_RUN = 3

# Before the first measurement pins this process.
USABLE = frozenset(os.sched_getaffinity(0))

Result = TypeVar("Result")


@dataclass(frozen=True)
class Machine:
    """`arithmetic` in ns per dependent multiply-add, `round_trip` in ns per cache
    line there and back between the two processors (None with one), `strays` the share of
    each processor that others use while we sleep."""

    cpus: tuple[int, ...]
    arithmetic: float
    round_trip: float | None
    strays: dict[int, float]

    def describe(self) -> str:
        """One line for the reader of a table."""
        strays = ", ".join(f"cpu {cpu} {share:.0%}" for cpu, share in self.strays.items())
        trip = "-" if self.round_trip is None else f"{self.round_trip:.0f} ns"
        return (
            f"processors {', '.join(map(str, self.cpus))}; arithmetic {self.arithmetic:.2f} ns a "
            f"step; cache line there and back {trip}; used by others: {strays}"
        )


def choose_cpus(wanted: list[int] | None) -> tuple[int, ...]:
    """The two processors to measure on, or the one there is."""
    usable = sorted(USABLE)
    if wanted:
        missing = [cpu for cpu in wanted if cpu not in usable]
        if missing:
            raise EnvironmentLacks(
                f"--cpus: processor {missing[0]} cannot be used here; usable: "
                + ", ".join(map(str, usable))
            )
        return tuple(wanted[:2])
    return tuple(usable[-2:])


def look(cpus: tuple[int, ...]) -> Machine:
    """Measure the machine; takes half a second."""
    strays = _strays(cpus)
    os.sched_setaffinity(0, {cpus[0]})
    arithmetic_ns = min(arithmetic() for _ in range(20))
    trip = min(round_trip(cpus) for _ in range(5)) if len(cpus) > 1 else None
    return Machine(cpus, arithmetic_ns, trip, strays)


def arithmetic() -> float:
    """ns per step of dependent arithmetic, now, on this processor."""
    ticks: int = lib.rl_limit_arithmetic(ROUNDS)
    return ticks / ROUNDS / ticks_per_second() * 1e9


def round_trip(cpus: tuple[int, ...]) -> float:
    """ns of a cache line there and back between the two processors, now."""
    ticks, _ = run_pair(cpus, "ping", {"rounds": PINGS}, 4096)
    return ticks / PINGS / ticks_per_second() * 1e9


def quiet_runs(
    measure: Callable[[], Result], runs: int, machine: Machine, *, pair: bool = False
) -> list[Result]:
    """`runs` results of `measure` from quiet moments; after TRIES_PER_RUN times as many
    tries also others, the least disturbed first. `pair`: it runs on both processors."""
    tried: list[tuple[float, float, Result]] = []

    def look() -> tuple[float, float]:
        return arithmetic(), round_trip(machine.cpus) if pair and machine.round_trip else 0.0

    best, nearest = machine.arithmetic, machine.round_trip or 0.0
    for _ in range(runs * TRIES_PER_RUN):
        before = look()
        result = measure()
        after = look()
        slowest, farthest = map(max, before, after)
        best = min(best, *(each[0] for each in (before, after)))
        nearest = min(nearest, *(each[1] for each in (before, after))) if pair else nearest
        tried.append((farthest, slowest, result))
        if sum(one[0] <= nearest * NEAR and one[1] <= best * QUIET for one in tried) >= runs:
            break
    tried.sort(key=lambda one: (one[0] > nearest * NEAR, one[1]))
    return [one[2] for one in tried[:runs]]


def _busy(cpus: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """Per processor: ticks in use, ticks in all, of the kernel's clock."""
    found = {}
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
                values = list(map(int, fields[:8]))
                idle = values[3] + values[4]
                found[int(name[3:])] = (sum(values) - idle, sum(values))
    return found


def _strays(cpus: tuple[int, ...]) -> dict[int, float]:
    before = _busy(cpus)
    time.sleep(0.3)
    after = _busy(cpus)
    return {
        cpu: (after[cpu][0] - before[cpu][0]) / max(1, after[cpu][1] - before[cpu][1])
        for cpu in cpus
    }
