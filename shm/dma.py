"""Memory for devices: on hugepages where possible, and with device addresses.

With an IOMMU, and for every device model, a device address is a base plus the offset in the
segment. Without an IOMMU it is the physical address. Physical pages are not consecutive, so an
access that crosses the end of a page reaches memory of other owners.
"""

from __future__ import annotations

import os

from ringline.shm import hugepages
from ringline.shm.creation import Unavailable
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.shm.segments import Segment

PAGEMAP = "/proc/self/pagemap"

# An entry of pagemap (the kernel's admin-guide/mm/pagemap.rst): bit 63 says that the page is in
# memory; bits 54:0 are its frame number, or 0 for a process that may not know it.
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1


class DeviceAddresses:
    """The device addresses of a segment.

    The address of the byte at `offset` is `page_bus[offset >> page_shift]` plus its offset in
    this page. `unusable` lists the buffers that must never be used.
    """

    __slots__ = ("page_bus", "page_shift", "unusable")

    def __init__(self, page_shift: int, page_bus: list[int], unusable: list[int]) -> None:
        self.page_shift = page_shift
        self.page_bus = page_bus
        self.unusable = unusable

    def of(self, offset: int) -> int:
        """The device address of the byte at `offset` in the segment."""
        page = offset >> self.page_shift
        return self.page_bus[page] + offset - (page << self.page_shift)


class DmaMemory:
    """The base of packet memory and descriptor memory.

    `segment` is its segment, `page_size` the size of a page in bytes; `hugepages` says whether
    pages are larger than ordinary ones. A context manager, as its segment is.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.page_size = os.fstatvfs(segment.fd).f_bsize
        self.hugepages = self.page_size > os.sysconf("SC_PAGESIZE")

    def _addresses(self, mode: str, base: int) -> tuple[int, list[int]]:
        """`page_shift` and `page_bus` for `mode`, "offset" or "physical"."""
        if mode == "offset":
            return 63, [base]
        if mode == "physical":
            return self.page_size.bit_length() - 1, self._physical()
        raise UsageError(f"dma must be 'offset' or 'physical', not {mode!r}")

    def _physical(self) -> list[int]:
        """The physical address of every page. The kernel may move ordinary pages at any time;
        hugepages stay in place."""
        ordinary = os.sysconf("SC_PAGESIZE")
        pages = []
        with open(PAGEMAP, "rb", buffering=0) as pagemap:
            for offset in range(0, self.segment.size, self.page_size):
                self.segment.memory[offset]  # a page gets its entry at the first access
                pagemap.seek((self.segment.address + offset) // ordinary * 8)
                entry = int.from_bytes(pagemap.read(8), "little")
                if not entry & _PRESENT or not entry & _FRAME:
                    raise EnvironmentLacks(
                        f"the kernel does not tell user {os.geteuid()} the physical addresses of "
                        f"{self.segment.path}: without an IOMMU "
                        "ringline must run as root (CAP_SYS_ADMIN)"
                    )
                pages.append((entry & _FRAME) * ordinary)
        return pages

    def close(self) -> None:
        """Unmap and close; may be called again."""
        self.segment.close()

    def __exit__(self, *failure: object) -> None:
        self.segment.__exit__(*failure)


def create_segment(instance: str, what: str, size: int, *, kind: int, pages: str) -> Segment:
    """Create a segment of `size` bytes for devices, header included.

    `pages`: "off" takes ordinary pages; "require" takes hugepages; "auto" takes hugepages if
    this user can get enough of them, otherwise ordinary pages. Among several hugepage sizes, the
    smallest with enough free pages is taken. Raises EnvironmentLacks.
    """
    if pages not in ("auto", "require", "off"):
        raise UsageError(f"hugepages must be 'auto', 'require' or 'off', not {pages!r}")
    obstacles: list[str] = []
    if pages != "off":
        mounts = hugepages.mounts() or hugepages.mount_standard()
        for mount, page_size in sorted(mounts, key=lambda mount: mount[1]):
            try:
                _check(mount, page_size, size)
                return Segment.create(instance, what, size, kind=kind, hugepage_mount=mount)
            except Unavailable as error:
                if str(error) not in obstacles:  # two mounts can have the same obstacle
                    obstacles.append(str(error))
    if pages == "require":
        if not obstacles:
            obstacles.append(
                "no hugetlbfs is mounted; mount one (mount -t hugetlbfs none /dev/hugepages)"
            )
        raise EnvironmentLacks(f'hugepages = "require", but {"; ".join(obstacles)}')
    reserved = hugepages.pool(hugepages.default_size(), "nr_hugepages")
    segment = Segment.create(instance, what, size, kind=kind)
    if reserved:
        segment.remark = "; ".join(obstacles)
    return segment


def _check(mount: str, page_size: int, size: int) -> None:
    """Raise Unavailable when this mount is not writable or has too few free pages."""
    name = hugepages.size_text(page_size)
    if not os.access(mount, os.W_OK | os.X_OK):
        raise Unavailable(
            f"{mount} is not writable for user {os.geteuid()} (run as root, or mount a "
            f"hugetlbfs for this user: mount -t hugetlbfs -o uid={os.geteuid()},mode=0700,"
            f"pagesize={page_size >> 20}M none DIRECTORY)"
        )
    needed = -(-size // page_size)
    free = hugepages.available(page_size)
    if needed > free:
        total = hugepages.pool(page_size, "nr_hugepages")
        raise Unavailable(
            f"{needed} hugepages of {name} are needed and {free} of {total} are free "
            f"({hugepages.how_to_reserve(page_size, total + needed - free)}; ringline doctor says "
            "how many a whole run needs)"
        )
