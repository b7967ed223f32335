"""All shared memory segments of one instance, from their creation until they are unlinked.

Only the supervisor creates segments and holds their locks. A child gets descriptors of the
segments that it needs, which `grant` makes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ringline.pipeline.configuration.config import Config, PortConfig
from ringline.pipeline.ports.attachment import Attachment
from ringline.pipeline.ports.create import attach_port
from ringline.pipeline.ports.interfaces import notes
from ringline.shm._shm import ffi, lib
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment, remove_stale
from ringline.shm.slots import WorkerSlot

DESCRIPTOR_BYTES = 32  # 16 of the 82599 and all cards of its family, 26 of a virtqueue
PAGE = 4096  # added to each descriptor ring: covers its alignment and page boundaries


class Instance:
    """The segments of an instance that this process runs. A context manager: on leaving,
    all segments are unlinked and closed.

    `packets`, `descriptors`, `lane`, `slots`, `cards` and `attachments` exist from start to end. A
    queue has the rings of its current generation, and older ones until the driver has settled them.
    """

    def __init__(self, config: Config, stop_dma: Callable[[str], object]) -> None:
        """Remove the segments that a dead run of the same name left, then create new ones.

        First, `stop_dma` is called with the PCI address of each card that the old segments
        name. Raises EnvironmentLacks if the instance already runs or memory is missing; then
        no new segment is left.
        """
        self.config = config
        self._rings: dict[int, list[RingPair]] = {}
        with contextlib.ExitStack() as stack:
            notes.restore_left(config.name)
            remove_stale(config.name, stop_dma)
            name, hugepages = config.name, config.memory.hugepages
            self.descriptors = stack.enter_context(
                DescriptorMemory.create(name, _descriptor_bytes(config), hugepages=hugepages)
            )
            self.packets = stack.enter_context(
                PacketMemory.create(
                    name, config.buffers, units=config.buffer_units, hugepages=hugepages
                )
            )
            self.lane = stack.enter_context(create_lane(name, config.buffers, config.buffer_units))
            self.books: Any = self.lane.at("struct rl_lane_segment *")
            self.slots = [
                stack.enter_context(
                    WorkerSlot.create(name, queue, config.worker(queue).state_bytes)
                )
                for queue in range(config.queues)
            ]
            # By port index: the segments of card processes.
            self.cards = {
                index: stack.enter_context(_card_segment(name, port))
                for index, port in enumerate(config.ports)
                if port.simulated and port.process
            }
            # By port index: what ports on interfaces of the kernel need of the supervisor. Last,
            # so that it is closed before packet memory.
            self.attachments: dict[int, Attachment] = {}
            for index, port in enumerate(config.ports):
                attachment = attach_port(port, self.packets)
                if attachment is not None:
                    stack.callback(attachment.close)
                    self.attachments[index] = attachment
            self._stack = stack.pop_all()

    def new_rings(self, queue: int, generation: int) -> RingPair:
        """Empty rings for the next generation of a worker. Older rings stay until
        `drop_old_rings`."""
        rings = RingPair.create(self.config.name, queue, generation)
        self._rings.setdefault(queue, []).append(rings)
        return rings

    def drop_old_rings(self, queue: int, generation: int) -> None:
        """Unlink and close the rings of `queue` that are older than `generation`, once the
        driver no longer uses them."""
        kept = []
        for rings in self._rings.get(queue, []):
            if rings.segment.generation < generation:
                rings.segment.unlink()
                rings.close()
            else:
                kept.append(rings)
        self._rings[queue] = kept

    def request_control_turn(self) -> None:
        """Make the lane's loop in C return to Python, where the driver reads messages."""
        self.books.request = (self.books.request + 1) & 0xFFFFFFFF

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        for queue in self._rings:
            self.drop_old_rings(queue, 1 << 32)
        self.books = ffi.NULL
        self._stack.close()


@contextlib.contextmanager
def grant(*segments: Segment, read_only: Sequence[Segment] = ()) -> Iterator[list[int]]:
    """Descriptors of these segments, to send to a child, and of others that it may only read;
    they are closed on leaving."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for number, segment in enumerate((*segments, *read_only)):
            descriptor = segment.share(read_only=number >= len(segments))
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield descriptors


def _card_segment(instance: str, port: PortConfig) -> Segment:
    """Imported here: only instances with a card process need the module."""
    from ringline.pipeline.ports.sim82599.port import card_segment

    return card_segment(instance, port)


def create_lane(instance: str, buffers: int, units: int = 1) -> Segment:
    """Create the segment `.lane.0`: counters and books, then one ledger word per unit of packet
    memory, of which each buffer has `units`."""
    ledger = ffi.sizeof("struct rl_lane_segment")
    size = ledger + buffers * units * ffi.sizeof("uint32_t")
    segment = Segment.create(instance, "lane.0", size, kind=lib.RL_SEGMENT_LANE)
    books = segment.at("struct rl_lane_segment *")
    books.ledger_offset = ledger
    books.buffers = buffers * units
    books.units = units
    return segment


def _descriptor_bytes(config: Config) -> int:
    """Bytes for the descriptor rings of all ports: each in whole pages, plus one page."""
    total = 0
    for port in config.ports:
        for descriptors in (port.rx_descriptors, port.tx_descriptors):
            total += port.queues * (-(-descriptors * DESCRIPTOR_BYTES // PAGE) + 1) * PAGE
    return total
