"""`bench driver` and `bench tx`: the bursts of the 82599 driver on a simulated card.

One queue, no worker, no packet loop. The time of the model is not counted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, Runs, quiet_runs
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import Windows, again, sample
from ringline.pipeline.configuration.config import FlowsConfig, PortConfig, WireConfig
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.supervisor.instance import create_lane
from ringline.shm.clock import ticks_per_second
from ringline.shm.packets import DescriptorMemory, PacketMemory

COUNT = 200_000  # packets of one call, which takes milliseconds
BATCH = 32
BUFFERS = 8192
DESCRIPTOR_ROUNDS = 2000
DESCRIPTORS = 512
SECONDS = 2.0  # of one run


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
) -> Runs[Windows]:
    """Windows with `ticks` of the driver and `packets`."""
    with private_port(wire) as (port, step):
        os.sched_setaffinity(0, {machine.cpus[0]})
        result = ffi.new("struct rl_measured *")
        whole = {"ticks": 0, "packets": 0}

        def once() -> None:
            measure(port, step, COUNT, BATCH, *options, result)
            whole["ticks"] += result.ticks
            whole["packets"] += result.packets

        once()  # warms the caches
        return quiet_runs(lambda: _windows(machine, once, whole), runs, machine)


def _windows(machine: Machine, once: Callable[[], None], whole: dict[str, int]) -> Windows:
    """One run: `once` again and again, which adds to `whole`."""
    watch = Watch(machine.cpus[:1], {"loop": os.getpid()})
    return sample(lambda: dict(whole), SECONDS, watch, wait=again(once))


def _descriptors(machine: Machine) -> Windows:
    """Of a bare loop that reads a descriptor, and writes one and a reference, for each packet."""
    ring = ffi.new("uint64_t[]", 2 * DESCRIPTORS)
    refs = ffi.new("struct rl_reference[]", DESCRIPTORS)
    whole = {"ticks": 0, "packets": 0}

    def once() -> None:
        whole["ticks"] += lib.rl_limit_descriptors(ring, refs, DESCRIPTORS, DESCRIPTOR_ROUNDS)
        whole["packets"] += DESCRIPTORS * DESCRIPTOR_ROUNDS

    return _windows(machine, once, whole)


FLOWS = WireConfig(flows=FlowsConfig())


def measure_driver(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet received, sent and forwarded, in batches of 32."""
    bare = _nanoseconds([_descriptors(machine)])
    both = [[2 * value for value in run] for run in bare]
    receive = _run(machine, runs, lib.rl_measure_receive, wire=FLOWS)
    transmit = _run(machine, runs, lib.rl_measure_transmit, False)
    forward = _run(machine, runs, lib.rl_measure_forward, wire=FLOWS)
    return [
        _figure(machine, "driver, receive", receive, bare, 3.0),
        _figure(machine, "driver, transmit", transmit, bare, 3.0),
        _figure(machine, "driver, forward", forward, both, 5.0),
    ]


def measure_tx(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet of a send loop: take a buffer, post it, reclaim it."""
    bare = _nanoseconds([_descriptors(machine)])
    loop = _run(machine, runs, lib.rl_measure_transmit, True)
    return [_figure(machine, "tx, CPU time of a transmit loop", loop, bare, 5.0)]


def _nanoseconds(runs: Sequence[Windows]) -> list[list[float]]:
    """Nanoseconds per packet in each window."""
    second = ticks_per_second()
    return [[value / second * 1e9 for value in run.per("ticks", "packets")] for run in runs]


def _figure(
    machine: Machine, what: str, runs: Runs[Windows], bare: list[list[float]], goal: float
) -> Figure:
    return in_windows(
        what,
        "ns",
        _nanoseconds(runs),
        bare,
        goal=goal,
        goal_on=machine.goal_on,
        disturbed=runs.disturbed,
    )
