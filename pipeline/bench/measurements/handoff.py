"""`bench handoff`: 16-byte references through one ring between two processes."""

from __future__ import annotations

from dataclasses import dataclass

from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.pair import BARE_RING, OUR_RING, measure_pair
from ringline.pipeline.bench.sampling.windows import Windows

BULK = 32  # references per call
OF_LIMIT = 0.9


@dataclass(frozen=True)
class _Run:
    ours: Windows
    bare: Windows

    @property
    def disturbed(self) -> str:
        return self.ours.disturbed or self.bare.disturbed


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per reference. Each run measures our ring and then a bare ring."""

    def once() -> _Run:
        ours = measure_pair(machine.cpus, OUR_RING, BULK)
        return _Run(ours, measure_pair(machine.cpus, BARE_RING, BULK))

    results = quiet_runs(once, runs, machine, pair=True)
    return [
        in_windows(
            f"handoff, one hop, bulk {BULK}",
            "ns",
            [run.ours.nanoseconds("moved") for run in results],
            [run.bare.nanoseconds("moved") for run in results],
            goal=2.9,
            goal_on=machine.goal_on,
            goal_of_limit=OF_LIMIT,
            disturbed=results.disturbed,
        )
    ]
