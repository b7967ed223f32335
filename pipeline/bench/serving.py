"""A lane in this process with one port, and a real worker process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.bench.worker import STATE, started
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.port import Port
from ringline.pipeline.supervisor.instance import create_lane
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.slots import WorkerSlot

BUFFERS = 8192


@dataclass(frozen=True)
class Serving:
    """A lane with `port` and one worker. `books` is its `struct rl_lane_segment *`, `counters` the
    `struct rl_worker_counters *` of the worker, `pid` the worker's process."""

    lane: Lane
    books: Any
    counters: Any
    pid: int


@contextlib.contextmanager
def serving(port: Port, worker_cpu: int, plugin: str) -> Iterator[Serving]:
    """Open and start `port`, whose index is 0, with a worker on `worker_cpu`; both poll and never
    sleep. The lane receives from the port when it is added to it (`Lane.add_port`). The port and
    the lane are closed with the context.
    """
    instance = f"bench-{os.getpid()}"
    with (
        PacketMemory.create(instance, BUFFERS, hugepages="off") as packets,
        DescriptorMemory.create(instance, 1 << 20, hugepages="off") as descriptors,
        create_lane(instance, BUFFERS) as segment,
        RingPair.create(instance, 0, 1) as rings,
        WorkerSlot.create(instance, 0, STATE) as slot,
    ):
        idle = Idle(adaptive=False)
        lane = Lane(segment, packets, packets.device_addresses("offset"), 1, idle)
        try:
            port.open(lane.memory, descriptors, descriptors.device_addresses("offset"))
            port.start()
            with started(plugin, packets, rings, slot, cpu=worker_cpu, idle="busy") as pid:
                lane.renew(0, RingPair.attach(rings.segment.share()), 1)
                lane.receiving = True
                books = segment.at("struct rl_lane_segment *")
                yield Serving(lane, books, slot.counters, pid)
        finally:
            lane.close()
            port.close()
