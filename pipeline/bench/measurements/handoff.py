"""`bench handoff`: 16-byte references through one ring between two processes."""

from __future__ import annotations

from dataclasses import dataclass

from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.pair import BARE_RING, OUR_RING, measure_pair
from ringline.pipeline.bench.sampling.windows import Windows, best_fifth

BULK = 32  # references per call
SECONDS = 2.0  # of each of the three loops in a run
OF_LIMIT = 0.9


@dataclass(frozen=True)
class _Run:
    """Our ring, and the bare ring with its ways to move references."""

    ours: Windows
    bare: tuple[Windows, ...]

    @property
    def disturbed(self) -> str:
        """What disturbed one of them."""
        return next((each.disturbed for each in (self.ours, *self.bare) if each.disturbed), "")

    @property
    def limit(self) -> tuple[float, ...]:
        """Nanoseconds in the windows of the faster bare ring."""
        ways = [each.nanoseconds("moved") for each in self.bare]
        return min(ways, key=lambda way: best_fifth(way, more=False) if way else float("inf"))


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per reference. Each run measures our ring and then the bare rings."""

    def once() -> _Run:
        cpus = machine.cpus
        ours = measure_pair(cpus, OUR_RING, seconds=SECONDS, bulk=BULK)
        bare = [
            measure_pair(cpus, BARE_RING, seconds=SECONDS, bulk=BULK, fewest=fewest)
            for fewest in (1, BULK // 2, BULK)
        ]
        return _Run(ours, tuple(bare))

    results = quiet_runs(once, runs, machine, pair=True)
    return [
        in_windows(
            f"handoff, one hop, bulk {BULK}",
            "ns",
            [run.ours.nanoseconds("moved") for run in results],
            [run.limit for run in results],
            goal=2.9,
            goal_on=machine.goal_on,
            goal_of_limit=OF_LIMIT,
            disturbed=results.disturbed,
        )
    ]
