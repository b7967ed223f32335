"""All segments of one instance, from the first made to the last unlinked.

The supervisor alone creates them, and holds their locks. Children get descriptors
of single segments, which `grant` makes: whoever is not given one cannot open it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from ringline.pipeline.configuration.config import Config, PortConfig
from ringline.shm._shm import ffi, lib
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment, remove_stale
from ringline.shm.slots import WorkerSlot

DESCRIPTOR_BYTES = 16  # of the 82599, and of every card of its family
PAGE = 4096  # descriptor rings are spaced so, at most: alignment and page ends cost less


class Instance:
    """The segments of an instance that runs here. A context manager: leaving it
    unlinks and closes them all.

    `packets`, `descriptors`, `lane`, `slots` and `cards` live as long as it does; a queue
    has the rings of one generation at a time.
    """

    def __init__(self, config: Config, stop_dma: Callable[[str], None]) -> None:
        """Remove what a dead run of the same name left, then make everything anew.

        Raises EnvironmentLacks when the instance runs already or memory is not
        to be had; nothing is left behind then.
        """
        self.config = config
        self._rings: dict[int, list[RingPair]] = {}
        with contextlib.ExitStack() as stack:
            self.removed = remove_stale(config.name, stop_dma)
            pci = [address for port in config.ports if (address := pci_address(port))]
            name, hugepages = config.name, config.memory.hugepages
            self.descriptors = stack.enter_context(
                DescriptorMemory.create(name, _descriptor_bytes(config), hugepages=hugepages)
            )
            self.packets = stack.enter_context(
                PacketMemory.create(name, config.buffers, hugepages=hugepages)
            )
            self.descriptors.segment.set_pci(pci)
            self.lane = stack.enter_context(create_lane(name, config.buffers))
            self.books: Any = self.lane.at("struct rl_lane_segment *")
            self.slots = [
                stack.enter_context(
                    WorkerSlot.create(name, queue, config.worker(queue).state_bytes)
                )
                for queue in range(config.queues)
            ]
            # By port index: of cards in processes of their own.
            self.cards = {
                index: stack.enter_context(_card_segment(name, port))
                for index, port in enumerate(config.ports)
                if port.simulated and port.process
            }
            self._stack = stack.pop_all()

    def new_rings(self, queue: int, generation: int) -> RingPair:
        """Empty rings for the next life of a worker. The older ones stay until `settled`."""
        rings = RingPair.create(self.config.name, queue, generation)
        self._rings.setdefault(queue, []).append(rings)
        return rings

    def rings(self, queue: int) -> RingPair:
        """The latest rings of a queue."""
        return self._rings[queue][-1]

    def settled(self, queue: int, generation: int) -> None:
        """The driver let go of all rings of `queue` older than `generation`: so do we."""
        kept = []
        for rings in self._rings.get(queue, []):
            if rings.segment.generation < generation:
                rings.segment.unlink()
                rings.close()
            else:
                kept.append(rings)
        self._rings[queue] = kept

    def ask_for_a_turn(self) -> None:
        """Have the lane's loop return to Python, where messages are read."""
        self.books.request = (self.books.request + 1) & 0xFFFFFFFF

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        for queue in self._rings:
            self.settled(queue, 1 << 32)
        self.books = ffi.NULL
        self._stack.close()


@contextlib.contextmanager
def grant(*segments: Segment) -> Iterator[list[int]]:
    """Descriptors of these segments to send to a child, closed here afterwards."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for segment in segments:
            descriptor = segment.share()
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield descriptors


def pci_address(port: PortConfig) -> str | None:
    """The PCI address of a port that is a card, None for others."""
    kind, _, address = port.device.partition(":")
    return address if kind == "pci" else None


def _card_segment(instance: str, port: PortConfig) -> Segment:
    """Only instances with such cards pay for the import."""
    from ringline.pipeline.ports.sim82599.port import card_segment

    return card_segment(instance, port)


def create_lane(instance: str, buffers: int) -> Segment:
    """The segment `.lane.0`: counters and books, then one ledger word per buffer."""
    ledger = ffi.sizeof("struct rl_lane_segment")
    size = ledger + buffers * ffi.sizeof("uint32_t")
    segment = Segment.create(instance, "lane.0", size, kind=lib.RL_SEGMENT_LANE)
    books = segment.at("struct rl_lane_segment *")
    books.ledger_offset = ledger
    books.buffers = buffers
    return segment


def _descriptor_bytes(config: Config) -> int:
    """Room for every descriptor ring of every port, each rounded up to whole pages."""
    total = 0
    for port in config.ports:
        for descriptors in (port.rx_descriptors, port.tx_descriptors):
            total += port.queues * (-(-descriptors * DESCRIPTOR_BYTES // PAGE) + 1) * PAGE
    return total
