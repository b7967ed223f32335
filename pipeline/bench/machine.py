"""The machine of a benchmark: what it is, how fast it is now, and the choice of undisturbed runs.

On a virtual machine the speed of a CPU varies. When others use it, a loop of pure
arithmetic takes up to 1.8 times as long. When the host moves a virtual CPU to another
chip, a cache line takes five times as long between the two CPUs. So `quiet_runs`
measures both before and after each run, prefers undisturbed runs, and says what disturbed those
that it had to take.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from ringline.pipeline.bench._bench import lib
from ringline.pipeline.bench.pair import run_pair
from ringline.pipeline.bench.sampling.disturbance import processor_seconds
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

ROUNDS = 2_000_000  # steps of the arithmetic loop: about 3 ms
PINGS = 100_000
# A run is undisturbed when the arithmetic loop takes at most QUIET times its best, and
# the round trip of a cache line at most NEAR times its best.
QUIET = 1.08
NEAR = 2.0
MORE_TRIES = 2  # runs beyond those that were asked for, when some were disturbed

# Absolute goals of rates and times hold for this machine.
REFERENCE = "two cores of an Intel processor with the instruction cldemote"

# The CPUs of this process before a measurement pins it.
USABLE = frozenset(os.sched_getaffinity(0))

Result = TypeVar("Result")


@dataclass(frozen=True)
class Machine:
    """What `measure_machine` found.

    `arithmetic` is ns per dependent multiply-add; `round_trip` is ns for a cache line to the
    other CPU and back (None with one CPU); `strays` is the share of each CPU that other
    processes use. `processor` is its name, `family` its vendor and numbers, `flags` its features,
    as /proc/cpuinfo has them, and `kernel` the release of the kernel.
    """

    cpus: tuple[int, ...]
    arithmetic: float
    round_trip: float | None
    strays: dict[int, float]
    processor: str = ""
    family: str = ""
    kernel: str = ""
    flags: frozenset[str] = frozenset()

    @property
    def goal_on(self) -> str:
        """REFERENCE if this machine is another one, else empty: as `goal_on` of a Figure."""
        return "" if len(self.cpus) > 1 and "cldemote" in self.flags else REFERENCE

    def to_json(self) -> dict[str, Any]:
        """What `bench --json` says of the machine."""
        return {
            "cpus": self.cpus,
            "arithmetic_ns": self.arithmetic,
            "round_trip_ns": self.round_trip,
            "strays": self.strays,
            "processor": self.processor,
            "family": self.family,
            "kernel": self.kernel,
        }

    def describe(self) -> str:
        """One line of text for the head of the table."""
        strays = ", ".join(f"cpu {cpu} {share:.0%}" for cpu, share in self.strays.items())
        trip = "-" if self.round_trip is None else f"{self.round_trip:.0f} ns"
        return (
            f"{self.processor} ({self.family}), Linux {self.kernel}; "
            f"CPUs {', '.join(map(str, self.cpus))}; arithmetic {self.arithmetic:.2f} ns a "
            f"step; cache line round trip {trip}; used by others: {strays}"
        )


class Runs(list[Result]):
    """The results of runs. `disturbed` says what disturbed those that count, and is empty if
    nothing did."""

    def __init__(self, results: Iterable[Result], disturbed: str = "") -> None:
        super().__init__(results)
        self.disturbed = disturbed


def choose_cpus(wanted: list[int] | None) -> tuple[int, ...]:
    """The two CPUs to measure on: `wanted`, or the last two usable ones, or the only one.

    Raises EnvironmentLacks when a wanted CPU cannot be used.
    """
    usable = sorted(USABLE)
    if wanted:
        missing = [cpu for cpu in wanted if cpu not in usable]
        if missing:
            raise EnvironmentLacks(
                f"bench: --cpus: CPU {missing[0]} cannot be used here; usable: "
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
    facts = processor_facts(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return Machine(
        cpus,
        arithmetic_ns,
        trip,
        strays,
        facts.get("model name", platform.machine()),
        describe_family(facts),
        platform.release(),
        frozenset(facts.get("flags", "").split()),
    )


def processor_facts(text: str) -> dict[str, str]:
    """The fields of the first processor in `text`, which is like /proc/cpuinfo (its names differ
    between architectures)."""
    first = text.strip().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def describe_family(facts: dict[str, str]) -> str:
    """Vendor, family, model and stepping of a processor, as far as /proc/cpuinfo has them."""
    names = {"vendor_id": "", "cpu family": "family ", "model": "model ", "stepping": "stepping "}
    told = [f"{before}{facts[name]}" for name, before in names.items() if facts.get(name)]
    return " ".join(told) or platform.machine()


def arithmetic() -> float:
    """ns per step of dependent arithmetic on this CPU, measured now."""
    ticks: int = lib.rl_limit_arithmetic(ROUNDS)
    return ticks / ROUNDS / ticks_per_second() * 1e9


def round_trip(cpus: tuple[int, ...]) -> float:
    """ns for a cache line to the other CPU and back, measured now."""
    ticks, _ = run_pair(cpus, "ping", {"rounds": PINGS}, 4096)
    return ticks / PINGS / ticks_per_second() * 1e9


class _Tried(NamedTuple, Generic[Result]):
    """A run: ns for a cache line and for arithmetic beside it, and what disturbed it within."""

    far: float
    slow: float
    within: str
    result: Result


def quiet_runs(
    measure: Callable[[], Result],
    runs: int,
    machine: Machine,
    *,
    pair: bool = False,
    more: int = MORE_TRIES,
) -> Runs[Result]:
    """`runs` results of `measure`, undisturbed if possible.

    A result may have an attribute `disturbed`, which says what disturbed it from within, as
    `Windows` has. After `runs` and `more` tries the least disturbed results fill up. `pair`
    says that `measure` uses both CPUs.
    """
    tried: list[_Tried[Result]] = []

    def sample() -> tuple[float, float]:
        return arithmetic(), round_trip(machine.cpus) if pair and machine.round_trip else 0.0

    best, nearest = machine.arithmetic, machine.round_trip or 0.0
    before = sample()
    for _ in range(runs + more):
        result = measure()
        after = sample()
        slowest, farthest = map(max, before, after)
        best = min(best, *(each[0] for each in (before, after)))
        nearest = min(nearest, *(each[1] for each in (before, after))) if pair else nearest
        within = getattr(result, "disturbed", "")
        tried.append(_Tried(farthest, slowest, within, result))
        quiet = sum(not _why(one, nearest, best) for one in tried)
        if quiet >= runs:
            break
        before = after
    tried.sort(key=lambda one: (one.far > nearest * NEAR, bool(one.within), one.slow))
    told = dict.fromkeys(_why(one, nearest, best) for one in tried[:runs])
    return Runs((one.result for one in tried[:runs]), "; ".join(filter(None, told)))


def _why(one: _Tried[Result], nearest: float, best: float) -> str:
    """What disturbed a run; empty if nothing did."""
    told = [one.within] if one.within else []
    if one.far > nearest * NEAR:
        told.append(f"the two CPUs were {one.far / nearest:.1f} times as far apart as at best")
    if one.slow > best * QUIET:
        told.append(f"a CPU had {best / one.slow:.0%} of its speed")
    return "; ".join(told)


def _strays(cpus: tuple[int, ...]) -> dict[int, float]:
    at, (_, before) = time.monotonic(), processor_seconds(cpus)
    time.sleep(0.3)
    seconds, (_, after) = time.monotonic() - at, processor_seconds(cpus)
    return {cpu: min(1.0, (after[cpu] - before[cpu]) / seconds) for cpu in cpus}
