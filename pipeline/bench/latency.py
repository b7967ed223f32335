"""`bench latency`: driver -> worker -> driver, one packet at a time, with a real worker process.

Idle otherwise, so what is measured is the way and the waking, not the queueing.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterator

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.children import Child
from ringline.pipeline.instance import grant
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.packets import PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.slots import WorkerSlot
from ringline.workers import launch

PATIENCE = 5.0  # seconds for the worker to be ready, and for each answer
FRAME = 60
BUFFERS = 64
SPINNING = (20_000, 5e-6)  # round trips of one run, seconds between them
ASLEEP = (150, 5e-3)


@contextlib.contextmanager
def worker(cpu: int, idle: str) -> Iterator[RingPair]:
    """The rings of a worker with the C `mac_swap`, running on `cpu` in a process of its own."""
    instance = f"bench-{os.getpid()}"
    with (
        PacketMemory.create(instance, BUFFERS, hugepages="off") as packets,
        RingPair.create(instance, 0, 1) as rings,
        WorkerSlot.create(instance, 0, 4096) as slot,
    ):
        child = Child("worker", launch.command(), launch.environment())
        try:
            with grant(packets.segment, rings.segment, slot.segment) as descriptors:
                child.tell(
                    {
                        "do": "open",
                        "queue": 0,
                        "generation": 1,
                        "plugin": "ringline.workers.plugins.mac_swap:mac_swap",
                        "options": {},
                        "ports": ["bench"],
                        "state_bytes": 0,
                        "idle": idle,
                        "yield": False,
                        "debug": False,
                        "cpu": cpu,
                    },
                    descriptors,
                )
            while True:
                received = child.control.receive(PATIENCE)
                if received is None:
                    raise EnvironmentLacks(f"the worker was not ready after {PATIENCE:g} s")
                if received[0]["event"] == "ready":
                    break
            yield rings
        finally:
            child.kill()


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Microseconds, median of each run's trips; the bare limit is a cache line's round trip."""
    figures = []
    second = ticks_per_second()
    bare = () if machine.round_trip is None else (machine.round_trip / 1e3,)
    for what, idle, (count, gap), wake, goal in (
        ("latency, busy-polling", "busy", SPINNING, False, 0.3),
        ("latency, worker asleep", "adaptive", ASLEEP, True, 100.0),
    ):
        with worker(machine.cpus[-1], idle) as rings:
            os.sched_setaffinity(0, {machine.cpus[0]})
            segment = ffi.cast("struct rl_rings_segment *", rings.segment.address)
            ends = [ffi.new("struct rl_ring_end *") for _ in range(2)]
            ends[0].ring, ends[1].ring = ffi.addressof(segment, "in"), ffi.addressof(segment, "out")
            reference = ffi.new(
                "struct rl_reference *", {"offset": lib.RL_BUFFER_HEADROOM, "length": FRAME}
            )
            trips = ffi.new("uint64_t[]", count)

            def once() -> float:
                answered = lib.rl_measure_round_trips(
                    segment, *ends, reference, trips, count, int(gap * second), wake,
                    int(PATIENCE * second),
                )  # fmt: skip
                if answered < count:
                    raise EnvironmentLacks(f"the worker stopped answering after {answered} packets")
                return statistics.median(trips) / second * 1e6

            once()  # warm
            runs_us = tuple(quiet_runs(once, runs, machine))
        figures.append(Figure(what, "us", runs_us, bare, goal))
    return figures
