"""The two segments that devices reach: packet memory and descriptor memory.

Workers map packet memory. No worker gets descriptor memory: a process that can write a
descriptor can make a card write to any address. Only the supervisor, the driver and simulated
cards map it.
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
    """`buffers` units of `stride` bytes; unit n starts at `first_offset + n * stride`.

    A buffer is `units` consecutive units, `room` bytes; its number is that of its first unit. The
    first `headroom` bytes of a buffer are for data that a plugin puts before a frame; a card
    writes after them.
    """

    def __init__(self, segment: Segment, units: int = 1) -> None:
        super().__init__(segment)
        self.units = units
        self.stride: int = lib.RL_BUFFER_STRIDE
        self.room = units * self.stride
        self.headroom: int = lib.RL_BUFFER_HEADROOM
        self.first_offset: int = lib.RL_HEADER_BYTES
        self.buffers = (segment.used - self.first_offset) // self.stride

    @classmethod
    def create(
        cls, instance: str, buffers: int, *, units: int = 1, hugepages: str = "auto"
    ) -> PacketMemory:
        """Create the segment `.packets` with `buffers` buffers of `units` units. `hugepages`: auto,
        require or off.

        Raises EnvironmentLacks when there is not enough memory.
        """
        size = cls.bytes_of(buffers, units)
        kind = lib.RL_SEGMENT_PACKETS
        return cls(create_segment(instance, "packets", size, kind=kind, pages=hugepages), units)

    @classmethod
    def attach(cls, fd: int, buffers: int, units: int = 1) -> PacketMemory:
        """Map the packet memory behind `fd`, which has `buffers` buffers of `units` units, and take
        over `fd`. Its header is not read, because every worker can write to it."""
        used = cls.bytes_of(buffers, units)
        return cls(Segment.attach_known(fd, kind=lib.RL_SEGMENT_PACKETS, used=used), units)

    @staticmethod
    def bytes_of(buffers: int, units: int = 1) -> int:
        """Bytes of a segment with `buffers` buffers; the kernel gives whole pages."""
        return int(lib.RL_HEADER_BYTES + buffers * units * lib.RL_BUFFER_STRIDE)

    def device_addresses(self, mode: str, base: int = PACKETS_BASE) -> DeviceAddresses:
        """The addresses of the buffers for a device.

        `mode` "offset": `base` plus the offset in the segment. "physical": physical
        addresses; buffers that straddle two pages are `unusable`. "pieces": as "offset", with
        the same unusable buffers.
        Raises EnvironmentLacks when the kernel hides physical addresses.
        """
        shift, pages = self._addresses("offset" if mode == "pieces" else mode, base)
        straddling = [] if mode == "offset" else self._straddlers()
        return DeviceAddresses(shift, pages, straddling)

    def _straddlers(self) -> list[int]:
        """Buffers that, with the cache line before them, start in one page and end in another:
        one at each end of a page. The kernel counts the line before a buffer too
        (pipeline/ports/xdp/xdp.h)."""
        page_ends = range(self.page_size, self.segment.used, self.page_size)
        found = ((page_end - self.first_offset) // self.room * self.units for page_end in page_ends)
        return sorted({buffer for buffer in found if buffer < self.buffers})

    def __enter__(self) -> PacketMemory:
        return self


class DescriptorMemory(DmaMemory):
    """Memory for descriptor rings. Allocations are consecutive and never freed."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self._next: int = lib.RL_HEADER_BYTES
        self._whole_pages = False

    @classmethod
    def create(cls, instance: str, size: int, *, hugepages: str = "auto") -> DescriptorMemory:
        """Create the segment `.descriptors` with `size` bytes to allocate."""
        size += lib.RL_HEADER_BYTES
        kind = lib.RL_SEGMENT_DESCRIPTORS
        return cls(create_segment(instance, DESCRIPTORS, size, kind=kind, pages=hugepages))

    @classmethod
    def attach(cls, fd: int) -> DescriptorMemory:
        """Map the descriptor memory behind `fd` and take over `fd`; nothing is allocated yet."""
        return cls(Segment.attach(fd, kind=lib.RL_SEGMENT_DESCRIPTORS))

    def device_addresses(self, mode: str, base: int = DESCRIPTORS_BASE) -> DeviceAddresses:
        """The addresses for a device, as in PacketMemory. After "physical" no allocation
        straddles two pages."""
        shift, pages = self._addresses("offset" if mode == "pieces" else mode, base)
        self._whole_pages = mode == "physical"
        return DeviceAddresses(shift, pages, [])

    def allocate(self, size: int, align: int = 128) -> tuple[int, int]:
        """Allocate `size` zeroed bytes. Returns (address in this process, offset in the segment).

        The offset is a multiple of `align` bytes, a power of two. Raises EnvironmentLacks when
        `size` is larger than a physical page, Bug when the segment is full.
        """
        offset = -(-self._next // align) * align
        if self._whole_pages and offset // self.page_size != (offset + size - 1) // self.page_size:
            if size > self.page_size:
                raise EnvironmentLacks(
                    f"a descriptor ring of {size} bytes needs physical memory in one piece, and "
                    f"a page of {self.segment.path} has {size_text(self.page_size)}: reserve "
                    'hugepages and set hugepages = "require" (as root: sysctl -w '
                    "vm.nr_hugepages=64)"
                )
            offset = -(-offset // self.page_size) * self.page_size
        if offset + size > self.segment.size:
            raise Bug(
                f"{size} bytes of descriptor memory are needed, but only "
                f"{self.segment.size - self._next} of {self.segment.size} are left"
            )
        self._next = offset + size
        # The driver could take a descriptor that an earlier driver left for a completed one.
        address = self.segment.address + offset
        ffi.memmove(ffi.cast("char *", address), bytes(size), size)
        return address, offset

    def __enter__(self) -> DescriptorMemory:
        return self
