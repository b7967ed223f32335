"""The two segments that devices reach: packet memory and descriptor memory.

Packet memory is mapped by workers too. Descriptor memory is the driver's alone: who
can write a descriptor can make a card write anywhere.
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib
from ringline.shm.dma import DeviceAddresses, DmaMemory, create_segment
from ringline.shm.errors import Bug, EnvironmentLacks
from ringline.shm.hugepages import size_text
from ringline.shm.owners import DESCRIPTORS
from ringline.shm.segments import Segment

__all__ = ["DescriptorMemory", "DeviceAddresses", "PacketMemory"]

PACKETS_BASE = 0x1_0000_0000
DESCRIPTORS_BASE = 0x1000_0000


class PacketMemory(DmaMemory):
    """Buffers by index: buffer n is `stride` bytes from `first_offset + n * stride` on.

    A buffer is `headroom` bytes for who wants to put something in front, and then
    what the card may write. `buffers` is their number.
    """

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.stride: int = lib.RL_BUFFER_STRIDE
        self.headroom: int = lib.RL_BUFFER_HEADROOM
        self.first_offset: int = lib.RL_HEADER_BYTES
        self.buffers = (segment.used - self.first_offset) // self.stride

    @classmethod
    def create(cls, instance: str, buffers: int, *, hugepages: str = "auto") -> PacketMemory:
        """The segment `.packets` for `buffers` buffers. `hugepages`: auto, require or off.

        Raises EnvironmentLacks when the memory is not to be had.
        """
        size = lib.RL_HEADER_BYTES + buffers * lib.RL_BUFFER_STRIDE
        kind = lib.RL_SEGMENT_PACKETS
        return cls(create_segment(instance, "packets", size, kind=kind, pages=hugepages))

    @classmethod
    def attach(cls, fd: int, buffers: int) -> PacketMemory:
        """The packet memory of `buffers` buffers behind `fd`, which is taken over. Every
        worker can write into its header: it is not read."""
        size = lib.RL_HEADER_BYTES + buffers * lib.RL_BUFFER_STRIDE
        return cls(Segment.attach_known(fd, kind=lib.RL_SEGMENT_PACKETS, used=size))

    def device_addresses(self, mode: str, base: int = PACKETS_BASE) -> DeviceAddresses:
        """Where a device finds the buffers.

        `mode` "offset": at `base` plus the offset in the segment. "physical": at
        their physical addresses; buffers that straddle a page are `unusable`.
        Raises EnvironmentLacks when the kernel hides physical addresses.
        """
        shift, pages = self._addresses(mode, base)
        straddling = [] if mode == "offset" else self._straddlers()
        return DeviceAddresses(shift, pages, straddling)

    def _straddlers(self) -> list[int]:
        """Buffers that begin in one page and end in another."""
        found = []
        for page_end in range(self.page_size, self.segment.used, self.page_size):
            buffer, inside = divmod(page_end - self.first_offset, self.stride)
            if 0 <= buffer < self.buffers and inside:
                found.append(buffer)
        return found

    def __enter__(self) -> PacketMemory:
        return self


class DescriptorMemory(DmaMemory):
    """Room for descriptor rings, given out from its start on and never taken back."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self._next: int = lib.RL_HEADER_BYTES
        self._whole_pages = False

    @classmethod
    def create(cls, instance: str, size: int, *, hugepages: str = "auto") -> DescriptorMemory:
        """The segment `.descriptors` with `size` bytes to allocate."""
        size += lib.RL_HEADER_BYTES
        kind = lib.RL_SEGMENT_DESCRIPTORS
        return cls(create_segment(instance, DESCRIPTORS, size, kind=kind, pages=hugepages))

    @classmethod
    def attach(cls, fd: int) -> DescriptorMemory:
        """The descriptor memory behind `fd`, which is taken over; nothing is allocated yet."""
        return cls(Segment.attach(fd, kind=lib.RL_SEGMENT_DESCRIPTORS))

    def device_addresses(self, mode: str, base: int = DESCRIPTORS_BASE) -> DeviceAddresses:
        """Where a device finds the rings, as for PacketMemory. After "physical" no
        allocation straddles a page."""
        shift, pages = self._addresses(mode, base)
        self._whole_pages = mode == "physical"
        return DeviceAddresses(shift, pages, [])

    def allocate(self, size: int, align: int = 128) -> tuple[int, int]:
        """`size` zeroed bytes: their address in this process, their offset in the segment.

        `align`, a power of two, is that of the offset. Raises EnvironmentLacks when
        no page holds that much in one piece, Bug when the segment is used up.
        """
        offset = -(-self._next // align) * align
        if self._whole_pages and offset // self.page_size != (offset + size - 1) // self.page_size:
            if size > self.page_size:
                raise EnvironmentLacks(
                    f"a descriptor ring of {size} bytes needs physical memory in one piece, and "
                    f"a page of {self.segment.path} has {size_text(self.page_size)}: reserve "
                    'hugepages and set hugepages = "require"'
                )
            offset = -(-offset // self.page_size) * self.page_size
        if offset + size > self.segment.size:
            raise Bug(
                f"{size} bytes of descriptor memory are asked for and "
                f"{self.segment.size - self._next} of {self.segment.size} are left"
            )
        self._next = offset + size
        # A descriptor of an earlier life could look done to the driver.
        address = self.segment.address + offset
        ffi.memmove(ffi.cast("char *", address), bytes(size), size)
        return address, offset

    def __enter__(self) -> DescriptorMemory:
        return self
