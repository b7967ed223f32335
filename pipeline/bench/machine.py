"""The state of the machine during a benchmark, and the choice of undisturbed runs.

On a virtual machine the speed of a CPU varies. When others use it, a loop of pure
arithmetic takes up to 1.8 times as long. When the host moves a virtual CPU to another
chip, a cache line takes five times as long between the two CPUs. So `quiet_runs`
measures both before and after each run, and prefers undisturbed runs.
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

ROUNDS = 2_000_000  # steps of the arithmetic loop: about 3 ms
PINGS = 100_000
# A run is undisturbed when the arithmetic loop takes at most QUIET times its best, and
# the round trip of a cache line at most NEAR times its best.
QUIET = 1.08
NEAR = 2.0
TRIES_PER_RUN = 3

# The CPUs of this process before a measurement pins it.
USABLE = frozenset(os.sched_getaffinity(0))

Result = TypeVar("Result")


@dataclass(frozen=True)
class Machine:
    """What `measure_machine` measured.

    `arithmetic` is ns per dependent multiply-add; `round_trip` is ns for a cache line to the
    other CPU and back (None with one CPU); `strays` is the share of each CPU that other
    processes use.
    """

    cpus: tuple[int, ...]
    arithmetic: float
    round_trip: float | None
    strays: dict[int, float]

    def describe(self) -> str:
        """One line of text for the head of the table."""
        strays = ", ".join(f"cpu {cpu} {share:.0%}" for cpu, share in self.strays.items())
        trip = "-" if self.round_trip is None else f"{self.round_trip:.0f} ns"
        return (
            f"CPUs {', '.join(map(str, self.cpus))}; arithmetic {self.arithmetic:.2f} ns a "
            f"step; cache line round trip {trip}; used by others: {strays}"
        )


def choose_cpus(wanted: list[int] | None) -> tuple[int, ...]:
    """The two CPUs to measure on: `wanted`, or the last two usable ones, or the only one.

    Raises EnvironmentLacks when a wanted CPU cannot be used.
    """
    usable = sorted(USABLE)
    if wanted:
        missing = [cpu for cpu in wanted if cpu not in usable]
        if missing:
            raise EnvironmentLacks(
                f"--cpus: CPU {missing[0]} cannot be used here; usable: "
                + ", ".join(map(str, usable))
            )
        return tuple(wanted[:2])
    return tuple(usable[-2:])


def measure_machine(cpus: tuple[int, ...]) -> Machine:
    """Measure the machine; takes half a second."""
    strays = _strays(cpus)
    os.sched_setaffinity(0, {cpus[0]})
    arithmetic_ns = min(arithmetic() for _ in range(20))
    trip = min(round_trip(cpus) for _ in range(5)) if len(cpus) > 1 else None
    return Machine(cpus, arithmetic_ns, trip, strays)


def arithmetic() -> float:
    """ns per step of dependent arithmetic on this CPU, measured now."""
    ticks: int = lib.rl_limit_arithmetic(ROUNDS)
    return ticks / ROUNDS / ticks_per_second() * 1e9


def round_trip(cpus: tuple[int, ...]) -> float:
    """ns for a cache line to the other CPU and back, measured now."""
    ticks, _ = run_pair(cpus, "ping", {"rounds": PINGS}, 4096)
    return ticks / PINGS / ticks_per_second() * 1e9


def quiet_runs(
    measure: Callable[[], Result], runs: int, machine: Machine, *, pair: bool = False
) -> list[Result]:
    """`runs` results of `measure`, undisturbed if possible.

    After TRIES_PER_RUN x `runs` tries the least disturbed results fill up. `pair` says that
    `measure` uses both CPUs.
    """
    tried: list[tuple[float, float, Result]] = []

    def sample() -> tuple[float, float]:
        return arithmetic(), round_trip(machine.cpus) if pair and machine.round_trip else 0.0

    best, nearest = machine.arithmetic, machine.round_trip or 0.0
    for _ in range(runs * TRIES_PER_RUN):
        before = sample()
        result = measure()
        after = sample()
        slowest, farthest = map(max, before, after)
        best = min(best, *(each[0] for each in (before, after)))
        nearest = min(nearest, *(each[1] for each in (before, after))) if pair else nearest
        tried.append((farthest, slowest, result))
        if sum(one[0] <= nearest * NEAR and one[1] <= best * QUIET for one in tried) >= runs:
            break
    tried.sort(key=lambda one: (one[0] > nearest * NEAR, one[1]))
    return [one[2] for one in tried[:runs]]


def _busy(cpus: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """Per CPU: (busy ticks, all ticks) of the kernel since boot."""
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
