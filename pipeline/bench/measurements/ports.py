"""`bench driver` and `bench tx`: the bursts of the 82599 driver on a simulated card.

One queue, no worker, no packet loop. The time of the model is not counted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.configuration.config import FlowsConfig, PortConfig, WireConfig
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.supervisor.instance import create_lane
from ringline.shm.clock import ticks_per_second
from ringline.shm.packets import DescriptorMemory, PacketMemory

COUNT = 2_000_000  # packets of one run
BATCH = 32
BUFFERS = 8192
DESCRIPTOR_ROUNDS = 20_000
DESCRIPTORS = 512


@contextlib.contextmanager
def private_port(wire: WireConfig | None) -> Iterator[tuple[Any, Any]]:
    """A started simulated 82599 with one queue: its `rl_port *` and its model's `rl_step *`."""
    instance = f"bench-{os.getpid()}"
    with (
        PacketMemory.create(instance, BUFFERS, hugepages="off") as packets,
        DescriptorMemory.create(instance, 1 << 20, hugepages="off") as descriptors,
        create_lane(instance, BUFFERS) as books,
    ):
        lane = Lane(books, packets, packets.device_addresses("offset"), 1, Idle())
        port = create_port(PortConfig(name="bench", device="sim:82599", wire=wire), 0)
        try:
            port.open(lane.memory, descriptors, descriptors.device_addresses("offset"))
            port.start()
            assert port.step is not None
            step = ffi.new("struct rl_step *")
            step.step = ffi.cast("uint32_t (*)(void *)", port.step[0])
            step.context = ffi.cast("void *", port.step[1])
            yield port.c_port, step
        finally:
            port.close()


def _run(
    machine: Machine, runs: int, measure: Any, *options: int, wire: WireConfig | None = None
) -> tuple[float, ...]:
    """Nanoseconds per packet of each run."""
    with private_port(wire) as (port, step):
        os.sched_setaffinity(0, {machine.cpus[0]})
        result = ffi.new("struct rl_measured *")

        def once() -> float:
            measure(port, step, COUNT, BATCH, *options, result)
            each: float = result.ticks / max(1, result.packets) / ticks_per_second() * 1e9
            return each

        once()  # warms the caches
        return tuple(quiet_runs(once, runs, machine))


def _descriptors(machine: Machine, runs: int) -> tuple[float, ...]:
    """Nanoseconds per descriptor of a bare loop that reads one, and writes one and a reference."""
    ring = ffi.new("uint64_t[]", 2 * DESCRIPTORS)
    refs = ffi.new("struct rl_reference[]", DESCRIPTORS)
    each = 1e9 / (DESCRIPTORS * DESCRIPTOR_ROUNDS) / ticks_per_second()

    def once() -> float:
        ticks: int = lib.rl_limit_descriptors(ring, refs, DESCRIPTORS, DESCRIPTOR_ROUNDS)
        return ticks * each

    return tuple(quiet_runs(once, runs, machine))


FLOWS = WireConfig(flows=FlowsConfig())


def measure_driver(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet received, sent and forwarded, in batches of 32."""
    bare = _descriptors(machine, runs)
    both = tuple(2 * limit for limit in bare)
    receive = _run(machine, runs, lib.rl_measure_receive, wire=FLOWS)
    transmit = _run(machine, runs, lib.rl_measure_transmit, False)
    forward = _run(machine, runs, lib.rl_measure_forward, wire=FLOWS)
    return [
        Figure("driver, receive", "ns", receive, bare, goal=3.0),
        Figure("driver, transmit", "ns", transmit, bare, goal=3.0),
        Figure("driver, forward", "ns", forward, both, goal=5.5),
    ]


def measure_tx(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet of a send loop: take a buffer, post it, reclaim it."""
    bare = _descriptors(machine, runs)
    loop = _run(machine, runs, lib.rl_measure_transmit, True)
    return [Figure("tx, CPU time of a transmit loop", "ns", loop, bare, goal=5.0)]
