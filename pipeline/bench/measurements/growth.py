"""`bench growth`: what a packet costs the driver with more queues, ports and flows, and with longer
frames; as ratios to the first figure of each kind.

All in one process, on one CPU: the lane, and workers that answer at once in the place of the worker
processes. Sixteen workers on the other CPU would take it from each other, and the lane would
measure how long they wait. Only the time of the lane counts, and no cache line travels between two
CPUs (`bench pipeline` has that).

More queues and ports are measured over cards that only fill descriptors. A simulated card touches
every frame, in the caches of the lane's core, which a card on PCI does not. With 16 queues there is
no room for both: that growth has a line of its own. Flows and lengths need the simulated card.
"""

from __future__ import annotations

import contextlib
import functools
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import Windows, best_fifth, sample
from ringline.pipeline.configuration.config import CRC_BYTES, FlowsConfig, PortConfig
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.pci.sysfs import sysfs_root
from ringline.pipeline.ports.sim82599.port import Sim82599Port, card_mac
from ringline.pipeline.ports.sim82599.wire import LINE_BYTES, FrameTable, from_flows
from ringline.pipeline.supervisor.instance import create_lane
from ringline.shm.clock import ticks_per_second
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.text import counted

FLOWS = 256
SIZE = 64  # bytes of a frame with CRC
DESCRIPTORS = 512  # of each RX and TX ring
# In an Ethernet frame without tags: the low halves of the IPv4 addresses, and the UDP ports.
SOURCE_AT, DESTINATION_AT = 28, 32
PORTS_AT = (34, 36)
QUEUES = (1, 2, 4, 8, 16)
PORTS = (1, 2, 4, 8)
MANY_FLOWS = (100, 1_000, 10_000, 100_000, 1_000_000)
SIZES = (64, 128, 256, 512, 1024, 1518)
QUEUES_GOAL = 1.15  # 16 queues to 1
SECONDS = 0.32  # of each figure in one run: four windows
WARM = 0.02  # seconds


@dataclass(frozen=True)
class Point:
    """What is measured: the number of queues of each port, how many of them get packets, the number
    of ports and of flows, and the bytes of a frame with CRC. `card`: packets come from simulated
    cards; otherwise the descriptors are filled and nothing else."""

    queues: int = 1
    ports: int = 1
    busy: int = 0  # 0: all
    flows: int = FLOWS
    size: int = SIZE
    card: bool = False


@dataclass(frozen=True)
class Sweep:
    """Points by their names; the others are compared with the first. `goals` are by name."""

    points: Mapping[str, Point]
    goals: Mapping[str, float] = field(default_factory=dict)


ONE_OF_16 = "16 queues, 15 of them empty"
SWEEPS = (
    Sweep(
        {counted(count, "queue"): Point(queues=count) for count in QUEUES}
        | {ONE_OF_16: Point(queues=16, busy=1)},
        {"16 queues": QUEUES_GOAL, ONE_OF_16: QUEUES_GOAL},
    ),
    Sweep({counted(count, "port"): Point(ports=count) for count in PORTS}),
    Sweep(
        {
            f"{counted(count, 'queue')} of a simulated card": Point(queues=count, card=True)
            for count in (1, 16)
        }
    ),
    Sweep({counted(count, "flow"): Point(flows=count, card=True) for count in MANY_FLOWS}),
    Sweep({counted(size, "byte"): Point(size=size, card=True) for size in SIZES}),
)


class Grown:
    """A lane with its ports, whose workers answer at once. `books` is its
    `struct rl_lane_segment *`."""

    def __init__(self, lane: Lane, books: Any) -> None:
        self.lane, self.books = lane, books

    def read(self) -> dict[str, float]:
        """`sent` packets, and `driver` seconds of the lane, without cards and answers."""
        counters = self.books.lane
        return {
            "sent": sum(queue.tx_packets for queue in self.books.queues),
            "driver": (counters.busy_ticks + counters.idle_ticks) / ticks_per_second(),
        }


@contextlib.contextmanager
def grown(point: Point) -> Iterator[Grown]:
    """A lane that never lacks packets, and sends them back where they came from."""
    instance = f"bench-{os.getpid()}"
    rings = point.queues * point.ports
    buffers = 2 * DESCRIPTORS * rings + 2 * lib.RL_RING_CAPACITY
    with contextlib.ExitStack() as stack:
        packets = stack.enter_context(PacketMemory.create(instance, buffers, hugepages="off"))
        descriptors = stack.enter_context(
            DescriptorMemory.create(instance, rings << 15, hugepages="off")
        )
        segment = stack.enter_context(create_lane(instance, buffers))
        kept: list[Any] = []  # memory of C
        addresses = packets.device_addresses("offset")
        lane = Lane(segment, packets, addresses, point.queues, Idle())
        stack.callback(lane.close)
        for index in range(point.ports):
            config = PortConfig(name=f"bench{index}", device="sim:82599", queues=point.queues)
            port = Sim82599Port(config, index, sysfs_root())
            stack.callback(port.close)
            port.open(lane.memory, descriptors, descriptors.device_addresses("offset"))
            port.start()
            if point.card:
                port.replay(frames(point.flows, point.size, index))
            else:
                kept.append(_fill(port, point.busy or point.queues))
            lane.add_port(port)
        answers = ffi.new("struct rl_answers *")
        for queue in range(point.queues):
            pair = RingPair.create(instance, queue, 1)
            pair.segment.unlink()
            lane.renew(queue, pair, 1)
            lib.rl_answers_add(answers, ffi.cast("struct rl_rings_segment *", pair.segment.address))
        lane.add_step(
            int(ffi.cast("uintptr_t", ffi.addressof(lib, "rl_answers_step"))),
            int(ffi.cast("uintptr_t", answers)),
        )
        lane.receiving = True
        yield Grown(lane, segment.at("struct rl_lane_segment *"))


def _fill(port: Sim82599Port, busy: int) -> Any:
    """Fill the descriptors of the first `busy` queues of `port` in the place of its model; the
    cdata that must live as long."""
    filler = ffi.new("struct rl_filler *")
    filler.card, filler.busy = ffi.cast("struct rl_card *", port.c_port.queues), busy
    function = ffi.addressof(lib, "rl_filler_step")
    port.step = int(ffi.cast("uintptr_t", function)), int(ffi.cast("uintptr_t", filler))
    return filler


@functools.cache
def frames(flows: int, size: int, port: int) -> FrameTable:
    """Frames of `flows` flows, `size` bytes with CRC, to the card of `port`. Up to 10,000 flows
    they are those of a wire; to make more that way takes too long."""
    config = FlowsConfig(count=min(flows, 10_000), sizes=((size - CRC_BYTES, 1),))
    table = from_flows(config, card_mac(port))
    return table if flows <= config.count else many_flows(bytes(table.frame(0)), flows)


def many_flows(frame: bytes, flows: int) -> FrameTable:
    """`flows`, at most 2^20, copies of an IPv4 frame with different addresses and ports.

    What one half of a pair grows by, the other shrinks by. So their sum in ones' complement is the
    same for all, and the checksums of IPv4 and UDP (RFC 1071) are right.
    """
    stride = -(-len(frame) // LINE_BYTES) * LINE_BYTES
    data = bytearray(frame.ljust(stride, b"\0") * flows)
    for shift, first, second in ((0, SOURCE_AT, DESTINATION_AT), (16, *PORTS_AT)):
        both = sum(int.from_bytes(frame[at : at + 2], "big") for at in (first, second))
        grown = array("H", (number >> shift & 0xFFFF for number in range(flows)))
        shrunk = array("H", ((both - value) % 0xFFFF for value in grown))
        for at, values in ((first, grown), (second, shrunk)):
            data[at::stride] = bytes(value >> 8 for value in values)
            data[at + 1 :: stride] = bytes(value & 0xFF for value in values)
    offsets = array("Q", range(0, stride * flows, stride))
    lengths = array("I", [len(frame)]) * flows
    return FrameTable(bytes(data), offsets, lengths, array("I", range(flows)), 0, 0, 0)


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet of the first point of each sweep; of the others the ratio to it.

    All points are measured in turns, `runs` times each, so that a slow moment hits all alike.
    """
    os.sched_setaffinity(0, {machine.cpus[0]})
    points = list(dict.fromkeys(point for sweep in SWEEPS for point in sweep.points.values()))
    results: dict[Point, list[Windows]] = {point: [] for point in points}
    for _ in range(runs):
        for point in points:
            results[point].append(_once(machine, point))
    return [figure for sweep in SWEEPS for figure in _figures(sweep, results)]


def _once(machine: Machine, point: Point) -> Windows:
    with grown(point) as peer:
        peer.lane.run(WARM)
        watch = Watch(machine.cpus[:1], {"driver": os.getpid()})
        return sample(peer.read, SECONDS, watch, wait=peer.lane.run)


def _figures(sweep: Sweep, results: dict[Point, list[Windows]]) -> Iterator[Figure]:
    def spent(point: Point) -> list[list[float]]:
        return [[value * 1e9 for value in run.per("driver", "sent")] for run in results[point]]

    def disturbed(point: Point) -> str:
        return "; ".join(dict.fromkeys(run.disturbed for run in results[point] if run.disturbed))

    (name, first), *others = sweep.points.items()
    yield in_windows(f"driver, {name}", "ns", spent(first), disturbed=disturbed(first))
    base = [best_fifth(run, more=False) for run in spent(first)]
    for name, point in others:
        yield in_windows(
            f"  {name}",
            "x",
            [[value / one for value in run] for run, one in zip(spent(point), base, strict=True)],
            goal=sweep.goals.get(name),
            disturbed=disturbed(point),
        )
