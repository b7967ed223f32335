"""VFIO: the kernel hands a card to a process, and the IOMMU bounds what memory it reaches.

Requests, structs and flags are those of linux/vfio.h; driver-api/vfio.rst of the kernel's
documentation has the order of the calls. A group joins a container, the container gets the IOMMU of
type 1 v2 and the memory of the instance, and the group gives out the descriptor of a device. When
the last descriptor of a device is closed, also by the end of the process, the kernel resets it and
switches its bus mastering off; only after that the memory may go.

Guarantees (tests in tests/guest/test_vfio.py):
 - bus mastering is off after the process was killed (test_a_killed_process_leaves_no_dma)
 - a card with a wrong address reaches no memory, the kernel says so, and its port fails
   (tests/guest/test_e1000e.py:
   test_a_wrong_address_is_stopped_named_by_the_kernel_and_the_port_fails)
 - a card that VFIO does not have, or that the port reaches without the IOMMU, is refused with the
   remedy (test_what_vfio_lacks_is_named, and
   tests/pipeline/ports/test_pci_access.py: test_each_refusal_of_vfio_is_a_sentence)

taken.py guarantees what follows for a run: of cards that are removed, and of drivers that are
killed in traffic.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringline.pipeline.ports.pci import groups
from ringline.pipeline.ports.pci.mapping import MappedRegisters
from ringline.pipeline.ports.pci.sysfs import (
    BUS_MASTER,
    COMMAND,
    INTX_DISABLE,
    MEMORY_SPACE,
    FindBar,
    PciDevice,
    how_to_bind,
)
from ringline.shm.errors import EnvironmentLacks, reason_of

NODES = Path("/dev/vfio")
TYPE1_MODULE = Path("/sys/module/vfio_iommu_type1")

_GET_API_VERSION, _CHECK_EXTENSION, _SET_IOMMU = 0x3B64, 0x3B65, 0x3B66
_GROUP_GET_STATUS, _GROUP_SET_CONTAINER, _GROUP_GET_DEVICE_FD = 0x3B67, 0x3B68, 0x3B6A
_DEVICE_GET_REGION_INFO, _DEVICE_GET_IRQ_INFO, _DEVICE_SET_IRQS = 0x3B6C, 0x3B6D, 0x3B6E
_IOMMU_GET_INFO, _IOMMU_MAP_DMA = 0x3B70, 0x3B71
_API_VERSION, _TYPE1V2 = 0, 3
_GROUP_VIABLE = 1
_BAR0, _CONFIG = 0, 7  # VFIO_PCI_*_REGION_INDEX
_MSIX, _REQUEST = 2, 4  # VFIO_PCI_*_IRQ_INDEX; the second: the kernel wants the device back
_REGION_MMAP = 4
_MAP_READ_WRITE = 3
_IRQ_DATA_NONE, _IRQ_DATA_EVENTFD, _IRQ_ACTION_TRIGGER = 1, 4, 0x20
_INFO_CAPS, _IOVA_RANGES = 2, 1  # VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE
_INFO_BYTES = 4096


@dataclass(frozen=True)
class Region:
    """Memory of this process that cards may reach: `size` bytes at `address` here, at `iova` for a
    card. All are multiples of a page."""

    iova: int
    address: int
    size: int


class Container:
    """The IOMMU's view of the memory of one process, for all its cards. Nothing is open before the
    first card joins.

    Another interface of the kernel (iommufd) would have the same methods. Close it after the cards,
    and before the memory.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self._regions = regions
        self._fd = -1
        self._groups: dict[str, int] = {}

    def device(self, device: PciDevice) -> int:
        """The descriptor of a card, which reaches `regions` from now on. The caller closes it.
        Raises EnvironmentLacks."""
        groups.check_viable(device)
        group = groups.group_of(device)
        if group not in self._groups:
            self._join(device, group)
        name = bytearray(device.address.encode() + b"\0")
        return _call(
            lambda: fcntl.ioctl(self._groups[group], _GROUP_GET_DEVICE_FD, name, True),
            f"VFIO does not give out PCI device {device.address}",
            {errno.ENODEV: "it is not in its group any more; was it removed?"},
        )

    def close(self) -> None:
        """Unmap everything. The cards must be closed. May be called again."""
        for fd in (*self._groups.values(), self._fd):
            if fd >= 0:
                os.close(fd)
        self._groups, self._fd = {}, -1

    def _join(self, device: PciDevice, group: str) -> None:
        if self._fd < 0:
            self._fd = _open(NODES / "vfio", "load the module vfio (modprobe vfio-pci)")
            self._check_type()
        path = NODES / group
        fd = _open(path, f"bind the card again ({how_to_bind(device.address)})")
        try:
            self._add(device, fd, first=not self._groups)
        except BaseException:
            os.close(fd)
            raise
        self._groups[group] = fd

    def _check_type(self) -> None:
        failed = f"{NODES / 'vfio'} does not answer as VFIO does"
        version = _call(lambda: fcntl.ioctl(self._fd, _GET_API_VERSION), failed, {})
        has_type = _call(lambda: fcntl.ioctl(self._fd, _CHECK_EXTENSION, _TYPE1V2), failed, {})
        if version != _API_VERSION or not has_type:
            raise EnvironmentLacks(
                "VFIO of this kernel has no IOMMU of type 1, version 2: load its module (modprobe "
                "vfio_iommu_type1)"
            )

    def _add(self, device: PciDevice, fd: int, *, first: bool) -> None:
        status = bytearray(struct.pack("II", 8, 0))
        _call(
            lambda: fcntl.ioctl(fd, _GROUP_GET_STATUS, status, True),
            f"VFIO does not know the IOMMU group of PCI device {device.address} any more",
            {},
        )
        if not struct.unpack("II", status)[1] & _GROUP_VIABLE:
            raise EnvironmentLacks(
                f"the IOMMU group of PCI device {device.address} is not viable: a kernel driver "
                f"uses another device in {device.folder}/iommu_group/devices; unbind that one too"
            )
        _call(
            lambda: fcntl.ioctl(fd, _GROUP_SET_CONTAINER, struct.pack("i", self._fd)),
            f"the IOMMU group of PCI device {device.address} cannot join those of other cards",
            {errno.EINVAL: "another card of this run is behind an IOMMU of another kind"},
        )
        if not first:
            return
        _call(
            lambda: fcntl.ioctl(self._fd, _SET_IOMMU, _TYPE1V2),
            f"VFIO cannot use the IOMMU of PCI device {device.address}",
            {
                errno.ENODEV: "load the module vfio_iommu_type1 (modprobe vfio_iommu_type1)",
                errno.EPERM: "it does not remap interrupts, so a card could forge those of others; "
                "switch that on in the firmware, or accept it "
                f"(echo 1 > {TYPE1_MODULE}/parameters/allow_unsafe_interrupts)",
            },
        )
        self._map()

    def _map(self) -> None:
        allowed = self._ranges()
        for region in self._regions:
            end = region.iova + region.size - 1
            if not any(low <= region.iova and end <= high for low, high in allowed):
                shown = ", ".join(f"{low:#x} to {high:#x}" for low, high in allowed)
                raise EnvironmentLacks(
                    f"the IOMMU does not translate the addresses {region.iova:#x} to {end:#x} that "
                    f"cards get for packet memory and descriptors, but {shown}; fewer buffers "
                    '(memory.buffers) need fewer addresses, and dma = "physical" needs none'
                )
        for region in self._regions:
            request = struct.pack(
                "IIQQQ", 32, _MAP_READ_WRITE, region.address, region.iova, region.size
            )
            self._map_one(request, region)

    def _map_one(self, request: bytes, region: Region) -> None:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        needed = sum(each.size for each in self._regions) >> 10
        has = "no limit" if limit == resource.RLIM_INFINITY else f"{limit >> 10} KiB"
        _call(
            lambda: fcntl.ioctl(self._fd, _IOMMU_MAP_DMA, request),
            f"{region.size >> 10} KiB of memory cannot be mapped for cards",
            {
                errno.ENOMEM: f"the limit of locked memory is {has}, and {needed} KiB are needed; "
                "raise it (ulimit -l, or LimitMEMLOCK=infinity of the service)",
                errno.ENOSPC: f"VFIO allows fewer mappings than the {len(self._regions)} of a run; "
                f"raise {TYPE1_MODULE}/parameters/dma_entry_limit",
            },
        )

    def _ranges(self) -> list[tuple[int, int]]:
        """The first and last addresses that the IOMMU translates. Linux before 5.4 does not say:
        then all."""
        info = bytearray(_INFO_BYTES)
        struct.pack_into("I", info, 0, len(info))
        _call(
            lambda: fcntl.ioctl(self._fd, _IOMMU_GET_INFO, info, True),
            "VFIO does not say which addresses the IOMMU translates",
            {},
        )
        _, flags, _, at = struct.unpack_from("IIQI", info)
        while flags & _INFO_CAPS and at:
            kind, _, following = struct.unpack_from("HHI", info, at)
            if kind == _IOVA_RANGES:
                (count,) = struct.unpack_from("I", info, at + 8)
                numbers = struct.unpack_from(f"{2 * count}Q", info, at + 16)
                return list(zip(numbers[::2], numbers[1::2], strict=True))
            at = following
        return [(0, (1 << 64) - 1)]


class VfioDevice:
    """A card that VFIO has handed to this process. `bar` are the registers of BAR 0, of at least
    `min_bytes` bytes, or of what `find_bar` says; closing them closes the card. Nothing is
    written to it here.

    Raises EnvironmentLacks, and then nothing is open.
    """

    def __init__(
        self,
        device: PciDevice,
        container: Container,
        min_bytes: int,
        find_bar: FindBar | None = None,
    ) -> None:
        self.address = device.address
        self._fd = container.device(device)
        try:
            _, _, self._config = self._region(_CONFIG)
            number, min_bytes = find_bar(self.read_config) if find_bar else (_BAR0, min_bytes)
            size, flags, offset = self._region(number)
            if size < min_bytes or not flags & _REGION_MMAP:
                raise EnvironmentLacks(
                    f"BAR {number} of PCI device {device.address} has {size} bytes"
                    f"{'' if flags & _REGION_MMAP else ', which cannot be mapped'}; the registers "
                    f"of this card need {min_bytes}"
                )
            try:
                memory = mmap.mmap(self._fd, size, offset=offset)
            except OSError as error:
                raise EnvironmentLacks(
                    f"BAR {number} of PCI device {device.address} cannot be mapped: "
                    f"{reason_of(error)}"
                ) from None
            self._request = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._wanted, self._event = False, -1
        except BaseException:
            os.close(self._fd)
            raise
        with contextlib.suppress(
            OSError
        ):  # Linux before 4.0: a removal waits for the end of the run
            self._set_eventfds(_REQUEST, [self._request])
        self.bar = MappedRegisters(memory, read_clears=True, release=self._close)

    def enable_memory(self) -> None:
        """Make the registers of the device answer."""
        self._command(MEMORY_SPACE, on=True)

    def set_bus_mastering(self, on: bool) -> None:
        """Allow or forbid DMA by the device."""
        self._command(BUS_MASTER, on=on)

    def mask_interrupt_line(self) -> None:
        """Keep the device from the interrupt line that it may share."""
        self._command(INTX_DISABLE, on=True)

    def read_config(self, offset: int, size: int) -> int:
        """A number of `size` bytes at `offset` of configuration space."""
        return int.from_bytes(self._pread(size, offset), "little")

    def interrupts(self) -> int:
        """How many MSI-X vectors the card has."""
        info = bytearray(struct.pack("IIII", 16, 0, _MSIX, 0))
        self._ask(_DEVICE_GET_IRQ_INFO, info)
        return int(struct.unpack("IIII", info)[3])

    def use_interrupts(self, eventfds: Sequence[int]) -> None:
        """Let MSI-X vector n of the card count up `eventfds[n]`; without any, switch MSI-X off.
        Raises EnvironmentLacks."""
        count = len(eventfds)
        _call(
            lambda: self._set_eventfds(_MSIX, eventfds),
            f"PCI device {self.address} gets no {count} interrupts (it has {self.interrupts()})",
            {},
        )

    def event(self) -> int:
        """An eventfd that MSI-X vector 0 counts up; -1 when the card gets no interrupt. It is
        closed with the card."""
        if self._event < 0:
            made = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                self.use_interrupts([made])
            except EnvironmentLacks:
                os.close(made)
                return -1
            self._event = made
        return self._event

    def wanted_back(self) -> bool:
        """Whether the kernel waits for the end of our use: the device is being removed, or unbound
        from vfio-pci."""
        with contextlib.suppress(BlockingIOError):
            self._wanted = bool(os.eventfd_read(self._request)) or self._wanted
        return self._wanted

    def _set_eventfds(self, index: int, eventfds: Sequence[int]) -> None:
        count = len(eventfds)
        kind = (_IRQ_DATA_EVENTFD if count else _IRQ_DATA_NONE) | _IRQ_ACTION_TRIGGER
        fcntl.ioctl(
            self._fd,
            _DEVICE_SET_IRQS,
            struct.pack(f"IIIII{count}i", 20 + 4 * count, kind, index, 0, count, *eventfds),
        )

    def _region(self, index: int) -> tuple[int, int, int]:
        """Size, flags and offset of a region of the device."""
        info = bytearray(struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
        self._ask(_DEVICE_GET_REGION_INFO, info)
        _, flags, _, _, size, offset = struct.unpack("IIIIQQ", info)
        return size, flags, offset

    def _ask(self, request: int, info: bytearray) -> None:
        try:
            fcntl.ioctl(self._fd, request, info, True)
        except OSError as error:
            raise self._gone(error) from None

    def _command(self, bits: int, *, on: bool) -> None:
        before = self.read_config(COMMAND, 2)
        after = before | bits if on else before & ~bits
        if after == before:
            return
        try:
            os.pwrite(self._fd, after.to_bytes(2, "little"), self._config + COMMAND)
        except OSError as error:
            raise self._gone(error) from None

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._fd, size, self._config + offset)
        except OSError as error:
            raise self._gone(error) from None

    def _gone(self, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(
            f"PCI device {self.address} does not answer: {reason_of(error)}; was it removed?"
        )

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._request)
        if self._event >= 0:
            os.close(self._event)


def _open(path: Path, remedy: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        what = {
            errno.EACCES: "run as root, or give this user the file (chown)",
            errno.EPERM: "run as root",
            errno.EBUSY: "another process has the card; stop that first",
            errno.ENOENT: remedy,
            errno.ENODEV: remedy,
        }.get(error.errno or 0)
        raise EnvironmentLacks(
            f"cannot open {path}: {reason_of(error)}{f'; {what}' if what else ''}"
        ) from None


def _call(request: Callable[[], object], failed: str, remedies: dict[int, str]) -> int:
    """The answer of a system call; an error of it is a sentence that begins with `failed`."""
    try:
        answer = request()
    except OSError as error:
        remedy = remedies.get(error.errno or 0)
        raise EnvironmentLacks(f"{failed}: {remedy or reason_of(error)}") from None
    return answer if isinstance(answer, int) else 0
