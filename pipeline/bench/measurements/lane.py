"""`bench lane`: the lane and a real worker process without a device model.

A stand-in for a card fills the descriptor rings before each pass of the lane. Its time does not
count, so the figures are what a real card would leave of the driver's and of the worker's cores.
There is no PCI here: a real card also reads and writes the memory of both.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import Windows, sample
from ringline.pipeline.bench.serving import Serving, serving
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.create import create_port
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import BooksError, EnvironmentLacks

PLUGIN = "ringline.workers.plugins.mac_swap:mac_swap_compiled"
WARM_SECONDS = 0.3
PIECE = 0.01  # seconds of a drain between two looks at what is in flight
DRAIN_TRIES = 200
DRIVER_GOAL, WORKER_GOAL = 9.5, 8.5  # ns per packet


class Prefilled(Serving):
    """A lane over a stand-in for a card."""

    def read(self) -> dict[str, float]:
        """`sent` packets and `driver` seconds of the lane, without the stand-in; `taken` packets
        and `worker` seconds of the worker."""
        second = ticks_per_second()
        return {
            "sent": self.books.queues[0].tx_packets,
            "driver": self.books.lane.busy_ticks / second,
            "taken": self.counters.packets,
            "worker": self.counters.busy_ticks / second,
        }

    def drain(self) -> int:
        """Receive no more, and run until nothing is in flight; the packets that still are."""
        self.lane.receiving = False
        for _ in range(DRAIN_TRIES):
            self.lane.run(PIECE)
            if self.lane.in_flight == 0:
                break
        return self.lane.in_flight


@contextlib.contextmanager
def prefilled(worker_cpu: int, plugin: str = PLUGIN) -> Iterator[Prefilled]:
    """A lane in this process over a simulated 82599 that was started, whose model the stand-in
    replaces, and a worker process on `worker_cpu`."""
    port = create_port(PortConfig(name="bench", device="sim:82599"), 0)
    with serving(port, worker_cpu, plugin) as peer:
        card = ffi.cast("struct rl_card *", port.c_port.queues)
        stand_in = ffi.new("struct rl_stand_in *", {"card": card})
        port.step = (
            int(ffi.cast("uintptr_t", ffi.addressof(lib, "rl_stand_in_step"))),
            int(ffi.cast("uintptr_t", stand_in)),
        )
        peer.lane.add_port(port)
        yield Prefilled(peer.lane, peer.books, peer.counters, peer.pid)


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet of the driver and of the worker, and what follows for a core."""
    results = quiet_runs(lambda: _once(machine), runs, machine, pair=True)
    driver = [[value * 1e9 for value in run.per("driver", "sent")] for run in results]
    worker = [[value * 1e9 for value in run.per("worker", "taken")] for run in results]
    figures = []
    for what, spent, goal in (("driver", driver, DRIVER_GOAL), ("worker", worker, WORKER_GOAL)):
        figures += [
            in_windows(
                f"lane without model, {what}",
                "ns",
                spent,
                goal=goal,
                goal_on=machine.goal_on,
                disturbed=results.disturbed,
            ),
            in_windows(
                f"  of a {what} core",
                "Mpps",
                [[1e3 / value for value in run] for run in spent],
                more=True,
                derived=True,
                disturbed=results.disturbed,
            ),
        ]
    return figures


def _once(machine: Machine) -> Windows:
    with prefilled(machine.cpus[-1]) as peer:
        os.sched_setaffinity(0, {machine.cpus[0]})
        peer.lane.run(WARM_SECONDS)
        if peer.read()["sent"] == 0:
            raise EnvironmentLacks("the worker of `lane` returned no packet: its CPU is busy")
        watch = Watch(machine.cpus, {"driver": os.getpid(), "worker": peer.pid})
        windows = sample(peer.read, watch=watch, wait=peer.lane.run)
        if lost := peer.drain():
            raise BooksError(f"{lost} packets of `bench lane` are still in flight")
    return windows
