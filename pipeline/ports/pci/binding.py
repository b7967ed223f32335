"""Give a card to vfio-pci or uio_pci_generic, and back to what had it before.

`driver_override` and `drivers_probe` are described in the kernel's
Documentation/ABI/testing/sysfs-bus-pci. What a card had is noted in a file below NOTES until it
gets that back; like the binding itself, the note lasts until the machine starts again.

Guarantees (tests in tests/guest/test_vfio.py):
 - a card has its driver back after `unbind`, and works (test_a_card_is_bound_and_unbound)
 - a card that is in use keeps its driver (test_a_card_that_is_in_use_is_not_bound)
 - a card that cannot be bound has its driver back (tests/guest/test_uio.py:
   test_a_card_that_cannot_be_bound_has_its_driver_back)
 - a card that was left half-way goes back to what had it
   (tests/pipeline/commands/test_binding.py: test_ctrl_c_gives_the_card_back,
   test_a_bind_that_was_killed_is_undone, test_a_card_whose_driver_did_not_come_can_be_given_back)
 - so it is with uio_pci_generic (tests/guest/test_uio.py: test_frames_pass_both_ways_over_uio)
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.pci import groups
from ringline.pipeline.ports.pci.sysfs import PciDevice, how_to_bind
from ringline.shm.errors import EnvironmentLacks, reason_of

NOTES = Path("/run/ringline/bound")
VFIO, UIO = DRIVERS = ("vfio-pci", "uio_pci_generic")
_LOOK = 0.02  # seconds between two looks whether a driver has its card


def bind(device: PciDevice, driver: str = VFIO, *, force: bool = False) -> str:
    """Give a card to `driver`, one of DRIVERS. Returns a sentence about it. With `force`, an
    interface in use is lost. Raises EnvironmentLacks, and then the card has what it had; if even
    that fails, the note stays for `unbind`."""
    if device.driver == driver:
        return f"PCI device {device.address} is bound to {driver} already"
    if device.driver in DRIVERS:
        raise EnvironmentLacks(
            f"PCI device {device.address} is bound to {device.driver}: give it back first "
            f"(ringline unbind {device.address})"
        )
    if not device.network:
        raise EnvironmentLacks(
            f"PCI device {device.address} is no network card, so it keeps what it has; ringline "
            "devices lists the network cards"
        )
    if driver == VFIO:
        groups.check_viable(device)
    elif groups.translates(device):
        raise EnvironmentLacks(
            f"PCI device {device.address} is behind an IOMMU, which stops the physical addresses "
            f"that ringline uses with {driver}: bind it to VFIO ({how_to_bind(device.address)})"
        )
    lost = device.lost
    if lost and not force:
        raise EnvironmentLacks(
            f"PCI device {device.address} is in use: {lost}; all that would be lost: use another "
            "card, take down what this one has (ip link set NAME down), or give it up (--force)"
        )
    if not (_bus(device) / "drivers" / driver).exists():
        raise EnvironmentLacks(f"the kernel has no driver {driver}: load it (modprobe {driver})")
    noted = _noted(device)
    if noted and device.driver in ("", noted[0]):  # of a `bind` or `unbind` that did not end
        had, override = noted
    else:
        had, override = device.driver, _override(device)
        _note(device, had, override)
    try:
        _move(device, driver, driver)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(EnvironmentLacks):
            if (device.driver, _override(device)) != (had, override):
                _move(device, override, had)
            _forget(device)
        raise
    before = f"; it was bound to {had}" if had else ""
    after = f"; lost: {lost}" if lost else ""
    return f"PCI device {device.address} is bound to {driver}{before}{after}"


def unbind(device: PciDevice) -> str:
    """Give a card back to what had it before `bind`; without a note of that, to the driver that the
    kernel chooses. Returns a sentence about it. Raises EnvironmentLacks; with a note, `unbind` can
    then be tried again."""
    noted = _noted(device)
    is_between = noted is not None and device.driver in ("", noted[0])
    if device.driver not in DRIVERS and not is_between:
        has = f"bound to {device.driver}" if device.driver else "not bound to any driver"
        raise EnvironmentLacks(
            f"PCI device {device.address} is {has}, not to {' or '.join(DRIVERS)}, so there is "
            "nothing to give back"
        )
    if user := device.user:
        raise EnvironmentLacks(f"PCI device {device.address} is in use by process {user}: stop it")
    had, override = noted or (None, "")
    _move(device, override, had)
    now = device.driver
    if now == VFIO and device.real:
        vendor, number = device.identity
        raise EnvironmentLacks(
            f"PCI device {device.address} is bound to {VFIO} again: somebody has told that driver "
            f"to take all cards of its kind; run: echo {vendor:04x} {number:04x} > "
            f"{_bus(device)}/drivers/{VFIO}/remove_id (or remove the option ids of the module), "
            "and unbind the card again"
        )
    _forget(device)
    return (
        f"PCI device {device.address} is bound to {now}"
        if now
        else (
            f"PCI device {device.address} has no driver"
            + (" again" if had == "" else "; its module may not be loaded")
        )
    )


def _move(device: PciDevice, override: str, driver: str | None) -> None:
    """Unbind the card, and bind it to `driver`; "": to none; None: to what the kernel chooses. A
    card that has `driver` keeps it."""
    _write(device.folder / "driver_override", f"{override}\n")
    if device.driver == driver:
        return
    if device.driver:
        _write(device.folder / "driver" / "unbind", device.address)
    if driver == "":
        return
    _write(_bus(device) / "drivers_probe", device.address)
    until = time.monotonic() + deadlines.BOUND
    while driver is not None and device.driver != driver:
        if time.monotonic() >= until:
            raise EnvironmentLacks(
                f"PCI device {device.address} cannot be bound to {driver}: the kernel's log "
                f"(dmesg) may say why; is its module loaded (modprobe {driver})?"
            )
        time.sleep(_LOOK)


def _bus(device: PciDevice) -> Path:
    return device.root / "bus" / "pci"


def _override(device: PciDevice) -> str:
    text = (device.folder / "driver_override").read_text().strip()
    return "" if text == "(null)" else text


def _note(device: PciDevice, driver: str, override: str) -> None:
    try:
        NOTES.mkdir(mode=0o755, parents=True, exist_ok=True)
        (NOTES / device.address).write_text(f"{driver}\n{override}\n")
    except OSError as error:
        raise _cannot(NOTES, error) from None


def _noted(device: PciDevice) -> tuple[str, str] | None:
    """Driver and override before `bind`; None without a note."""
    try:
        driver, override, *_ = (NOTES / device.address).read_text().split("\n")
    except (OSError, ValueError):
        return None
    return driver, override


def _forget(device: PciDevice) -> None:
    (NOTES / device.address).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise _cannot(path, error) from None


def _cannot(path: Path, error: OSError) -> EnvironmentLacks:
    remedy = "; run as root" if isinstance(error, PermissionError) else ""
    return EnvironmentLacks(f"cannot write to {path}: {reason_of(error)}{remedy}")
