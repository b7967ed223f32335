"""PCI devices through sysfs: find one, map its registers, switch its DMA on and off.

The root of all paths is `/sys`, or the folder that RINGLINE_SYSFS names. A device model in another
process can offer a card in such a folder: one folder per device with the same few files, in which
`resource0` is plain memory that both processes map.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import time
from pathlib import Path
from typing import Any

from ringline.pipeline._pipeline import ffi
from ringline.shm._shm import lib as shm
from ringline.shm.errors import EnvironmentLacks

_COMMAND = 4  # offset of the command register in configuration space
_MEMORY_SPACE = 0x2
_BUS_MASTER = 0x4
_IFF_UP = 0x1
_POLL = 100e-6  # seconds between two reads of a register


def sysfs_root() -> Path:
    """`/sys`, or the folder that RINGLINE_SYSFS names."""
    return Path(os.environ.get("RINGLINE_SYSFS") or "/sys")


def devices_folder(root: Path) -> Path:
    """The folder of the devices below a sysfs root."""
    return root / "bus" / "pci" / "devices"


def stop_dma(address: str) -> None:
    """Switch bus mastering of a device off, if the device still exists.

    The supervisor calls this after a driver died and before it releases the memory that the card
    may still write to.
    """
    folder = devices_folder(sysfs_root()) / address
    if folder.exists():
        PciDevice(address, sysfs_root()).set_bus_mastering(False)


class PciDevice:
    """One device below `root`, by address, as `0000:03:00.0`; without a domain, 0000.

    Raises `EnvironmentLacks` when there is no such device.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.address = address if address.count(":") > 1 else f"0000:{address}"
        self.folder = devices_folder(root) / self.address
        self._real = root == Path("/sys")
        if not self.folder.is_dir():
            present = sorted(path.name for path in devices_folder(root).glob("*"))
            raise EnvironmentLacks(
                f"there is no PCI device {self.address} in {devices_folder(root)}; "
                f"there are: {', '.join(present) or 'none'}"
            )

    @property
    def identity(self) -> tuple[int, int]:
        """Vendor and device ID."""
        return self._hex("vendor"), self._hex("device")

    def check_unused(self) -> None:
        """Raise `EnvironmentLacks` when a kernel driver has one of its interfaces up."""
        for interface in sorted((self.folder / "net").glob("*")):
            if _is_up(interface):
                driver = self.folder / "driver"
                name = driver.resolve().name if driver.is_symlink() else "(unknown)"
                raise EnvironmentLacks(
                    f"PCI device {self.address} is in use: its kernel driver {name} has the "
                    f"interface {interface.name} up; take it down first "
                    f"(ip link set {interface.name} down)"
                )

    def map_bar(self, min_bytes: int) -> MappedBar:
        """Map BAR 0, of at least `min_bytes` bytes, for this process alone.

        Memory space is enabled first: it is off in a device that no driver has used yet.
        """
        self._command(_MEMORY_SPACE, on=True)
        return MappedBar(self.folder / "resource0", min_bytes, read_clears=self._real)

    def set_bus_mastering(self, on: bool) -> None:
        """Allow or forbid DMA by the device."""
        self._command(_BUS_MASTER, on=on)

    def _command(self, bits: int, *, on: bool) -> None:
        path = self.folder / "config"
        try:
            with path.open("r+b", buffering=0) as config:
                fd = config.fileno()
                command = int.from_bytes(os.pread(fd, 2, _COMMAND), "little")
                command = command | bits if on else command & ~bits
                os.pwrite(fd, command.to_bytes(2, "little"), _COMMAND)
        except OSError as error:
            raise _unusable(path, error) from None

    def _hex(self, name: str) -> int:
        path = self.folder / name
        try:
            return int(path.read_text(), 16)
        except OSError as error:
            raise _unusable(path, error) from None
        except ValueError:
            raise EnvironmentLacks(f"{path} does not hold a hexadecimal number") from None


class MappedBar:
    """A BAR mapped into this process; implements `RegisterAccess`.

    Raises `EnvironmentLacks` when the file cannot be mapped or another instance has mapped it.
    """

    def __init__(self, path: Path, min_bytes: int, *, read_clears: bool) -> None:
        self.read_clears = read_clears
        try:
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size < min_bytes:
                raise EnvironmentLacks(
                    f"{path} has {size} bytes; the registers of this card need {min_bytes}"
                )
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EnvironmentLacks(f"{path} is mapped by another instance") from None
            try:
                self._memory = mmap.mmap(self._file.fileno(), size)
            except OSError as error:
                raise _unusable(path, error) from None
        except BaseException:
            self._file.close()
            raise
        self._view = ffi.from_buffer("uint8_t[]", self._memory, require_writable=True)
        self._base = int(ffi.cast("uintptr_t", self._view))

    def read32(self, address: int) -> int:
        """The 32-bit register at byte `address`."""
        value: int = shm.rl_read32(self._base + address)
        return value

    def write32(self, address: int, value: int) -> None:
        """Write the 32-bit register at byte `address`."""
        shm.rl_write32(self._base + address, value)

    def pointer(self, address: int) -> Any:
        """The register as cdata `volatile uint32_t *`; invalid after `close`."""
        return ffi.cast("volatile uint32_t *", self._base + address)

    def relax(self) -> None:
        """Sleep between two reads of a register."""
        time.sleep(_POLL)

    def close(self) -> None:
        """Unmap the registers and release the lock on the device."""
        del self._base  # a later access raises AttributeError; it does not crash
        ffi.release(self._view)
        self._memory.close()
        self._file.close()


def _is_up(interface: Path) -> bool:
    """Whether an interface is administratively up: its driver uses the card then, even without
    a link."""
    flags, state = interface / "flags", interface / "operstate"
    if flags.exists() and re.fullmatch(r"0x[0-9a-fA-F]+", text := flags.read_text().strip()):
        return bool(int(text, 16) & _IFF_UP)
    return state.exists() and state.read_text().strip() == "up"


def _unusable(path: Path, error: OSError) -> EnvironmentLacks:
    remedy = "; run as root" if isinstance(error, PermissionError) else ""
    return EnvironmentLacks(f"cannot use {path}: {error.strerror}{remedy}")
