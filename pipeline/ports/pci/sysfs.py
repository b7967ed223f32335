"""PCI devices through sysfs: find one, take it, map its registers, switch its DMA on and off.

The root of all paths is `/sys`, or the folder that RINGLINE_SYSFS names. A device model in another
process can offer a card in such a folder: one folder per device with the same few files, in which
`resource0` is plain memory that both processes map.

Only a card that this run took is written to. `take` checks everything first: no kernel driver uses
the card, nobody else has it, its registers can be mapped. It writes nothing. The port's start is
the first to write, and notes the address in the header of `.descriptors` before. Whoever cleans
up after a driver, the supervisor, the next start or `ringline cleanup`, stops the noted cards and
no others, and of those only the ones that still belong to nobody else (`stop_dma`).

Guarantees (tests in tests/e2e/test_hands_off.py):
 - after a refusal of any kind, the configuration space of every configured card is as before
   (test_a_refused_card_is_not_written_to, test_check_writes_to_no_card,
   test_no_card_is_written_to_when_another_port_is_refused)
 - a run that ends before its cards were started has written to none of them
   (test_a_card_is_not_written_to_before_every_worker_is_ready)
 - of the cards of a killed run, those that somebody else uses now are left alone
   (test_a_card_that_somebody_else_uses_now_is_left_alone), and the others are stopped
   (test_a_card_that_a_killed_run_left_is_stopped)
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.interfaces.carries import carried, is_up
from ringline.pipeline.ports.pci.mapping import MappedRegisters
from ringline.pipeline.ports.pci.users import is_child, lock, lock_all, process, process_with
from ringline.shm.errors import EnvironmentLacks, reason_of

LOCKDOWN = Path("/sys/kernel/security/lockdown")
COMMAND = 4  # offset of the command register in configuration space
MEMORY_SPACE = 0x2
BUS_MASTER = 0x4
INTX_DISABLE = 0x400
_NETWORK = 2  # base class of the PCI Code and ID Assignment
_LOOK = 0.02  # seconds between two attempts to lock a card

# Kernel drivers that only hand a device to a process: the device does nothing by itself.
HANDING_OVER = frozenset({"vfio-pci", "uio_pci_generic", "igb_uio"})


# Finds the BAR with the registers: gets `read_config`, and returns its number and least size.
ReadConfig = Callable[[int, int], int]
FindBar = Callable[[ReadConfig], tuple[int, int]]


def sysfs_root() -> Path:
    """`/sys`, or the folder that RINGLINE_SYSFS names."""
    return Path(os.environ.get("RINGLINE_SYSFS") or "/sys")


def devices_folder(root: Path) -> Path:
    """The folder of the devices below a sysfs root."""
    return root / "bus" / "pci" / "devices"


def stop_dma(address: str, patience: float = deadlines.CARD_FREE) -> str:
    """Switch bus mastering of a device off that a dead driver had taken.

    Returns "", or why the device was left alone: it is gone, a kernel driver uses it by now, or
    another process has it. A driver that is about to end has it for a moment, so `patience`
    is the number of seconds to wait for that. A lock of our own child does not count: it is a
    driver that hangs in the kernel.

    The caller releases memory that the card may write to after this. Raises EnvironmentLacks
    when the device could not be stopped.
    """
    if not (devices_folder(sysfs_root()) / address).exists():
        return f"PCI device {address} is gone"
    device = PciDevice(address, sysfs_root())
    if driver := device.kernel_driver:
        return f"PCI device {address} belongs to the kernel driver {driver} now"
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []
        for path in sorted(device.folder.glob("resource[0-5]")) or [device.folder / "resource0"]:
            try:
                files.append(stack.enter_context(path.open("rb", buffering=0)))
            except OSError as error:
                raise _unusable(path, error) from None
        until = time.monotonic() + patience
        while (user := lock_all(files)) is not None and not is_child(user):
            if time.monotonic() >= until:
                return f"PCI device {address} belongs to {process(user)} now"
            time.sleep(_LOOK)
        while (other := device.user) and other != user:
            if time.monotonic() >= until:
                return f"PCI device {address} belongs to {process(other)} now"
            time.sleep(_LOOK)
        device.set_bus_mastering(False)
    return ""


class PciDevice:
    """One device below `root`, by address, as `0000:03:00.0`; without a domain, 0000.

    Raises `EnvironmentLacks` when there is no such device.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.address = address if address.count(":") > 1 else f"0000:{address}"
        self.root = root
        self.folder = devices_folder(root) / self.address
        self.real = root == Path("/sys")  # else a model offers it
        if not self.folder.is_dir():
            raise EnvironmentLacks(
                f"there is no PCI device {self.address} in {devices_folder(root)}; of network "
                f"cards there are: {', '.join(_network_cards(root)) or 'none'}"
            )

    @property
    def identity(self) -> tuple[int, int]:
        """Vendor and device ID."""
        return self._hex("vendor"), self._hex("device")

    @property
    def network(self) -> bool:
        """Whether it is a network card."""
        return self._hex("class") >> 16 == _NETWORK

    @property
    def numa_node(self) -> int | None:
        """The NUMA node that it is attached to; None if the machine does not say."""
        try:
            node = int((self.folder / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return node if node >= 0 else None

    @property
    def interfaces(self) -> list[Path]:
        """The folders of its network interfaces."""
        nets = (*self.folder.glob("net/*"), *self.folder.glob("virtio*/net/*"))
        return sorted(nets)

    @property
    def driver(self) -> str:
        """The driver that is bound to it, of any kind; "" without one."""
        link = self.folder / "driver"
        return link.resolve().name if link.is_symlink() or link.exists() else ""

    @property
    def kernel_driver(self) -> str | None:
        """The kernel driver that uses the device; None without one, or with a driver that only
        hands the device to a process."""
        if name := self.driver:
            return None if name in HANDING_OVER else name
        # Such an interface has a driver, even if the link to it is missing.
        return "(unknown)" if self.interfaces else None

    @property
    def lost(self) -> str:
        """What is lost when its kernel driver gives it up, as parts of a sentence; "" for
        nothing."""
        parts = []
        if self.real and self.kernel_driver and not self.interfaces:
            parts.append(
                f"its kernel driver {self.driver} shows no interface here, and may have it in "
                "another network namespace (a container)"
            )
        for interface in self.interfaces:
            parts += [f"{interface.name} is up"] if is_up(interface) else []
            parts += carried(interface)
        return ", ".join(parts)

    @property
    def user(self) -> int | None:
        """A process to which vfio-pci or a uio driver has handed the device; None without one.

        Such a process, for example a virtual machine, does not lock `resource0`.
        """
        nodes = {f"/dev/{node.name}" for node in (self.folder / "uio").glob("uio*")}
        nodes |= {f"/dev/vfio/devices/{node.name}" for node in (self.folder / "vfio-dev").glob("*")}
        if (group := self.folder / "iommu_group").exists():
            nodes.add(f"/dev/vfio/{group.resolve().name}")
        return process_with(nodes) if nodes else None

    def check_unused(self) -> None:
        """Raise `EnvironmentLacks` when a kernel driver or another process uses the device."""
        driver = self.kernel_driver
        if driver is None:
            if other := self.user:
                raise EnvironmentLacks(
                    f"PCI device {self.address} is in use by {process(other)}; stop that first"
                )
            return
        without = self.real and not (self.folder / "iommu_group").exists()  # VFIO cannot have it
        bind = how_to_bind(self.address, "uio_pci_generic" if without else "")
        give = f"give the card to ringline ({bind})"
        if driver == "(unknown)":
            give = f"unbind the driver (lspci -k -s {self.address} names it)"
        if any(carried(interface) for interface in self.interfaces):
            raise EnvironmentLacks(
                f"PCI device {self.address} is in use by its kernel driver {driver}: {self.lost}; "
                f"all that would be lost: use another card, or give up this one "
                f"({bind} --force)"
            )
        for interface in self.interfaces:
            if is_up(interface):
                raise EnvironmentLacks(
                    f"PCI device {self.address} is in use: its kernel driver {driver} has the "
                    f"interface {interface.name} up; take it down first "
                    f"(ip link set {interface.name} down), then {give}"
                )
        raise EnvironmentLacks(
            f"PCI device {self.address} belongs to its kernel driver {driver}; {give}"
        )

    def take(self, min_bytes: int, find_bar: FindBar | None = None) -> MappedBar:
        """Take the device for this process alone: check it, and map BAR 0, of at least
        `min_bytes` bytes, or what `find_bar` says. Nothing is written to the device.

        Raises `EnvironmentLacks` when the device is in use or cannot be used.
        """
        self.check_unused()
        number, min_bytes = find_bar(self.read_config) if find_bar else (0, min_bytes)
        bar = MappedBar(self.folder / f"resource{number}", min_bytes, read_clears=self.real)
        try:
            self.check_unused()  # again: a driver may have come before the lock
            bar.configuration = self._open_configuration()
        except BaseException:
            bar.close()
            raise
        return bar

    def read_config(self, offset: int, size: int) -> int:
        """A number of `size` bytes at `offset` of configuration space."""
        with self._open_configuration() as config:
            return int.from_bytes(os.pread(config.fileno(), size, offset), "little")

    def mask_interrupt_line(self) -> None:
        """Keep the device from the interrupt line that it may share. A kernel driver that gets the
        device removes this when it enables it."""
        self._command(INTX_DISABLE, on=True)

    def enable_memory(self) -> None:
        """Make the registers of the device answer: they do not before a driver used it."""
        self._command(MEMORY_SPACE, on=True)

    def set_bus_mastering(self, on: bool) -> None:
        """Allow or forbid DMA by the device."""
        self._command(BUS_MASTER, on=on)

    def _open_configuration(self) -> BinaryIO:
        path = self.folder / "config"
        try:
            return path.open("r+b", buffering=0)
        except OSError as error:
            raise _unusable(path, error) from None

    def _command(self, bits: int, *, on: bool) -> None:
        with self._open_configuration() as config:
            try:
                before = int.from_bytes(os.pread(config.fileno(), 2, COMMAND), "little")
                after = before | bits if on else before & ~bits
                if after != before:
                    os.pwrite(config.fileno(), after.to_bytes(2, "little"), COMMAND)
            except OSError as error:
                raise _unusable(self.folder / "config", error) from None

    def _hex(self, name: str) -> int:
        path = self.folder / name
        try:
            return int(path.read_text(), 16)
        except OSError as error:
            raise _unusable(path, error) from None
        except ValueError:
            raise EnvironmentLacks(f"{path} does not hold a hexadecimal number") from None


class MappedBar(MappedRegisters):
    """A BAR mapped through its file in sysfs, which stays locked.

    Raises `EnvironmentLacks` when the file cannot be mapped or another process has locked it.
    """

    configuration: BinaryIO | None = None
    """Configuration space of the device; closed with the BAR."""

    def __init__(self, path: Path, min_bytes: int, *, read_clears: bool) -> None:
        try:
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            if (user := lock(self._file)) is not None:
                raise EnvironmentLacks(
                    f"{path} is mapped by another instance ({process(user)}): stop it, or "
                    "configure another card"
                )
            size = os.fstat(self._file.fileno()).st_size
            if size < min_bytes:
                raise EnvironmentLacks(
                    f"{path} has {size} bytes; the registers of this card need {min_bytes}"
                )
            try:
                memory = mmap.mmap(self._file.fileno(), size)
            except OSError as error:
                raise _unmappable(path, error) from None
        except BaseException:
            self._file.close()
            raise
        super().__init__(memory, read_clears=read_clears, release=self._close)

    def gone(self) -> bool:
        """Whether the device was removed: the kernel knows it no more, or nothing answers. What the
        registers of such a device read as depends on the machine: all ones, or all zeros."""
        assert self.configuration is not None
        try:
            vendor = os.pread(self.configuration.fileno(), 2, 0)
        except OSError:  # ENODEV: the file in sysfs is removed
            return True
        return vendor == b"\xff\xff"

    def _close(self) -> None:
        self._file.close()
        if self.configuration is not None:
            self.configuration.close()


def _network_cards(root: Path) -> list[str]:
    found = []
    for path in sorted(devices_folder(root).glob("*")):
        with contextlib.suppress(OSError, ValueError):  # it was removed just now, or is damaged
            is_network = int((path / "class").read_text(), 16) >> 16 == _NETWORK
            found += [path.name] if is_network else []
    return found


def how_to_bind(address: str, driver: str = "") -> str:
    """The command that gives a device to VFIO, or to another driver."""
    return f"ringline bind {address}" + (f" --driver {driver}" if driver else "")


def lockdown(file: Path | None = None) -> str:
    """How far the kernel is locked down (kernel_lockdown(7)): "" when it is not. `file` stands for
    LOCKDOWN."""
    try:
        text = (file or LOCKDOWN).read_text(encoding="ascii")
    except OSError:  # no securityfs
        return ""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found and found[1] != "none" else ""


def _unusable(path: Path, error: OSError) -> EnvironmentLacks:
    remedy = "; run as root" if isinstance(error, PermissionError) else ""
    if remedy and (mode := lockdown()):
        remedy = (
            f": this kernel is locked down ({mode}, as with Secure Boot), which forbids it to root "
            f"too; VFIO stays allowed ({how_to_bind(path.parent.name)})"
        )
    return EnvironmentLacks(f"cannot use {path}: {reason_of(error)}{remedy}")


def _unmappable(path: Path, error: OSError) -> EnvironmentLacks:
    """The kernel refuses with EINVAL what a driver has claimed (IO_STRICT_DEVMEM)."""
    if error.errno != errno.EINVAL:
        return _unusable(path, error)
    return EnvironmentLacks(
        f"{path} cannot be mapped ({error.strerror}): a driver of the kernel uses this memory; "
        f"/proc/iomem names it beside {path.parent.name}; unload that driver, or use VFIO "
        f"({how_to_bind(path.parent.name)})"
    )
