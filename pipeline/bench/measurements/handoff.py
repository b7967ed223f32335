"""`bench handoff`: 16-byte references through one ring between two processes."""

from __future__ import annotations

from ringline.pipeline.bench._bench import ffi
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.pair import run_pair
from ringline.shm.clock import ticks_per_second

COUNT = 32 * 400_000  # references of one run
BULK = 32  # references per call


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per reference. Each run measures our ring and then a bare ring."""
    given = {"count": COUNT, "bulk": BULK}
    each = 1e9 / COUNT / ticks_per_second()

    def once() -> tuple[float, float]:
        ours, _ = run_pair(machine.cpus, "our ring", given, ffi.sizeof("struct rl_ring"))
        bare, _ = run_pair(machine.cpus, "bare ring", given, ffi.sizeof("struct rl_bare_ring"))
        return ours * each, bare * each

    results = quiet_runs(once, runs, machine, pair=True)
    ours, bare = zip(*results, strict=True)
    return [Figure("handoff, one hop, bulk 32", "ns", ours, bare, goal=2.9)]
