"""`bench latency`: the round trip of one packet, driver to worker to driver.

The worker is a real process. Only one packet is in flight, so the figure is the time of
the hand-over and the wake-up, without queueing.
"""

from __future__ import annotations

import os
import statistics

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, Runs, quiet_runs
from ringline.pipeline.bench.worker import TIMEOUT, worker
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

PLUGIN = "ringline.workers.plugins.mac_swap:mac_swap"
# (round trips of one run, seconds between two of them)
SPINNING = (20_000, 5e-6)
ASLEEP = (150, 5e-3)


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Microseconds, the median of each run. The bare limit is a cache line's round trip."""
    bare = () if machine.round_trip is None else (machine.round_trip / 1e3,)
    spinning = _trips(machine, runs, "busy", *SPINNING)
    asleep = _trips(machine, runs, "adaptive", *ASLEEP)
    return [
        Figure(
            "latency, busy-polling",
            "us",
            tuple(spinning),
            bare,
            goal=0.3,
            goal_on=machine.goal_on,
            disturbed=spinning.disturbed,
        ),
        Figure(
            "latency, worker asleep",
            "us",
            tuple(asleep),
            goal=100.0,
            disturbed=asleep.disturbed,
        ),
    ]


def _trips(machine: Machine, runs: int, idle: str, count: int, gap: float) -> Runs[float]:
    second = ticks_per_second()
    trips = ffi.new("uint64_t[]", count)

    def once() -> float:
        # A new worker for each run: a spinning one would disturb the round trips of `quiet_runs`.
        with worker(PLUGIN, cpu=machine.cpus[-1], idle=idle) as peer:
            os.sched_setaffinity(0, {machine.cpus[0]})
            answered = lib.rl_measure_round_trips(
                peer.rings,
                peer.in_,
                peer.out,
                peer.references,
                trips,
                count,
                int(gap * second),
                idle != "busy",
                int(TIMEOUT * second),
            )
            if answered < count:
                raise EnvironmentLacks(f"the worker stopped answering after {answered} packets")
        microseconds: float = statistics.median(trips) / second * 1e6
        return microseconds

    return quiet_runs(once, runs, machine, pair=True)
