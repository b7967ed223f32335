"""A port on a lane of its own, driven by the test in place of the driver process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.descriptor_rings.port import RingPort
from ringline.pipeline.ports.virtio.port import VirtioPort
from ringline.shm.frames import units_for
from ringline.shm.packets import DescriptorMemory, DeviceAddresses, PacketMemory
from ringline.shm.segments import Segment

# What `residuals` gives when every buffer is where the books say.
RIGHT = {"descriptors": 0, "packets": 0, "buffers": 0, "blanks": 0, "missing": 0, "twice": 0}
FRAME = bytes(range(100))


class PortHarness:
    """The calls of a lane to a port, as methods that a test calls one by one.

    With `pages`, packet memory has pages of 2 ** `pages` bytes at unordered device addresses.
    """

    port_class: type[RingPort] | type[VirtioPort]

    def __init__(
        self, instance: str, buffers: int = 512, pages: int | None = None, **config: Any
    ) -> None:
        with ExitStack() as stack:
            self.config = PortConfig(
                "wan", "sim:82599", **{"rx_descriptors": 64, "tx_descriptors": 64, **config}
            )
            units = units_for(self.config.frame_max)
            self.packets = stack.enter_context(PacketMemory.create(instance, buffers, units=units))
            stack.callback(self.packets.segment.unlink)
            self.descriptors = stack.enter_context(DescriptorMemory.create(instance, 1 << 20))
            stack.callback(self.descriptors.segment.unlink)
            books = stack.enter_context(
                Segment.create(
                    instance,
                    "lane.0",
                    ffi.sizeof("struct rl_lane_segment") + 4 * buffers * units,
                    kind=lib.RL_SEGMENT_LANE,
                )
            )
            stack.callback(books.unlink)
            self.books = ffi.cast("struct rl_lane_segment *", books.address)
            self.books.ledger_offset = ffi.sizeof("struct rl_lane_segment")
            self.books.buffers, self.books.units = buffers * units, units
            self.addresses = self.packets.device_addresses("offset")
            if pages is not None:
                count = (self.packets.segment.size >> pages) + 1
                unordered = [0x7_0000_0000 + (count - n << pages + 1) for n in range(count)]
                begins = [4096 + n * self.packets.stride for n in range(buffers)]
                ends = [begin + self.packets.stride - 1 for begin in begins]
                straddling = [n for n in range(buffers) if begins[n] >> pages != ends[n] >> pages]
                self.addresses = DeviceAddresses(pages, unordered, straddling)
            self.lane = Lane(books, self.packets, self.addresses, 16, Idle())
            self.port = self.port_class(self.config, 0, Path("/nowhere"))
            ring_addresses = self.descriptors.device_addresses("offset")
            self.rings_bus = ring_addresses.of(0)
            self.prepare()
            self.port.open(self.lane.memory, self.descriptors, ring_addresses)
            stack.callback(self.port.close)
            self.lane.add_port(self.port)
            self.c_port, self.memory = self.port.c_port, self.lane.memory
            self.ledger = self.memory.ledger
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """What a kind of port needs before it is opened."""

    def start(self) -> Self:
        self.port.start()
        return self

    # -- calls of the driver ----------------------------------------------------------------

    def rx_burst(self, queue: int = 0, n: int = 64) -> list[Any]:
        """The references of one receive burst."""
        refs = ffi.new("struct rl_reference[]", n or 1)
        taken = self.c_port.rx_burst(self.c_port, queue, refs, n)
        return [ffi.new("struct rl_reference *", refs[i])[0] for i in range(taken)]

    def tx_burst(self, refs: list[Any], queue: int = 0) -> int:
        """Post packets as the lane does: set their ledger words first. Returns how many were
        posted."""
        array = ffi.new("struct rl_reference[]", max(len(refs), 1))
        for i, ref in enumerate(refs):
            array[i] = ref
            word = self.ledger[ref.buffer]
            self.ledger[ref.buffer] = lib.RL_HOLDER_CARD_TX << 28 | word & 0xFFFF
        sent: int = self.c_port.tx_burst(self.c_port, queue, array, len(refs))
        for ref in refs[sent:]:
            self.ledger[ref.buffer] = lib.RL_HOLDER_WORKER << 28 | self.ledger[ref.buffer] & 0xFFFF
        return sent

    def reclaim(self, queue: int = 0) -> int:
        return int(self.c_port.reclaim(self.c_port, queue))

    def held(self, ref: Any, queue: int = 0) -> Any:
        """Book a received packet as the lane does: the worker `queue` holds it."""
        self.ledger[ref.buffer] = lib.RL_HOLDER_WORKER << 28 | queue << 8 | ref.port
        self.counters(queue).rx_packets += 1
        return ref

    def packet(self, frame: bytes, tag: int | None = None, blank: bool = False) -> Any:
        """A packet that a worker holds, in a buffer from the free list."""
        self.memory.free_count -= 1
        buffer = self.memory.free[self.memory.free_count]
        origin = 255 if blank else 0
        self.ledger[buffer] = lib.RL_HOLDER_WORKER << 28 | origin
        if blank:
            self.books.slots[0].blanks_granted += 1
        else:
            self.counters(0).rx_packets += 1
        ref = ffi.new("struct rl_reference *")
        ref.buffer, ref.offset, ref.length = buffer, self.memory.headroom, len(frame)
        ref.flags, ref.vlan_tci = (lib.RL_FLAG_VLAN, tag) if tag is not None else (0, 0)
        ffi.memmove(self.data(ref), frame, len(frame))
        return ref[0]

    def data(self, ref: Any) -> Any:
        return self.memory.base + ref.buffer * self.memory.stride + ref.offset

    def frame(self, ref: Any) -> bytes:
        return bytes(ffi.buffer(self.data(ref), ref.length))

    def counters(self, queue: int) -> Any:
        return self.books.queues[queue]

    def residuals(self) -> dict[str, Any]:
        """The balance, with a full scan; RIGHT when the books are right."""
        self.lane.balance(complete=True)
        shown = self.books.balance
        return {
            "descriptors": shown.descriptor_residual[0],
            "packets": shown.packets_residual[0],
            "buffers": shown.buffers_residual,
            "blanks": shown.blanks_residual,
            "missing": shown.scan_missing,
            "twice": shown.scan_duplicates,
        }
