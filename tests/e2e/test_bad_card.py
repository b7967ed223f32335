"""Cards that cannot be used: each message names the address and what to do.

A folder takes the place of sysfs, with the few files that ringline reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .operator_harness import HEAD, Operator

pytestmark = pytest.mark.slow

ADDRESS = "0000:03:00.0"
DEVICE = f"port.wan.device: PCI device {ADDRESS}"
CONFIG = f'{HEAD}[port.wan]\ndevice = "pci:{ADDRESS}"\ndma = "offset"\n'
REGISTERS = 128 << 10


class Card:
    """A fake card: the sysfs folder of an unused one; its registers are a plain file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sys" / "bus" / "pci" / "devices" / ADDRESS
        self.folder.mkdir(parents=True)
        for name, text in (("vendor", "0x8086\n"), ("device", "0x10fb\n"), ("class", "0x020000\n")):
            (self.folder / name).write_text(text)
        (self.folder / "config").write_bytes(bytes(256))
        (self.folder / "resource0").write_bytes(bytes(REGISTERS))

    def interface(self, name: str, driver: str | None, **files: str) -> None:
        """Add the kernel interface `name`, with `files` in its folder."""
        if driver is not None:
            drivers = self.folder.parents[1] / "drivers" / driver
            drivers.mkdir(parents=True)
            (self.folder / "driver").symlink_to(drivers)
        folder = self.folder / "net" / name
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text + "\n")


@pytest.fixture
def card(operator: Operator) -> Card:
    return Card(operator.folder)


def refused(operator: Operator, command: str = "run", text: str = CONFIG, code: int = 3) -> str:
    path = operator.write(text)
    sentence = operator.refused(code, command, path, environment={"RINGLINE_SYSFS": "sys"})
    return sentence.removeprefix(f"{path}: ")


def test_a_card_that_is_absent(operator: Operator, card: Card) -> None:
    card.folder.rename(card.folder.with_name("0000:04:00.1"))
    told = (
        f"there is no PCI device {ADDRESS} in sys/bus/pci/devices; of network cards there are: "
        "0000:04:00.1"
    )
    assert refused(operator) == told
    assert refused(operator, "check") == f"port.wan.device: {told}"


def test_a_machine_without_pci(operator: Operator) -> None:
    assert refused(operator).endswith("; of network cards there are: none")


@pytest.mark.parametrize(
    ("driver", "files", "whose"),
    [
        ("ixgbe", {"flags": "0x1003", "operstate": "up"}, "ixgbe"),
        ("ixgbe", {"flags": "0x1003", "operstate": "down"}, "ixgbe"),  # up without a cable
        (None, {"operstate": "up"}, "(unknown)"),
    ],
)
def test_a_card_whose_kernel_driver_has_the_interface_up(
    operator: Operator, card: Card, driver: str | None, files: dict[str, str], whose: str
) -> None:
    card.interface("eth0", driver, **files)
    then = f"unbind the driver (lspci -k -s {ADDRESS} names it)"
    if driver is not None:
        then = f"give the card to ringline (ringline bind {ADDRESS})"
    told = (
        f"PCI device {ADDRESS} is in use: its kernel driver {whose} has the interface eth0 up; "
        f"take it down first (ip link set eth0 down), then {then}"
    )
    assert refused(operator) == told
    assert refused(operator, "check") == f"port.wan.device: {told}"


def test_a_card_of_another_kind(operator: Operator, card: Card) -> None:
    (card.folder / "device").write_text("0x1234\n")
    told = (
        f"port.wan: PCI device {ADDRESS} is 8086:1234, for which there is no driver here; "
        "there is one for 1af4:1000, 1af4:1041, 8086:10c9, 8086:10d3, 8086:10f7, 8086:10fb, "
        "8086:154d, 8086:1557"
    )
    assert refused(operator) == told
    assert refused(operator, "check") == told


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "vendor": (lambda file: file.write_text("what\n"), "does not hold a hexadecimal number"),
    "device": (Path.unlink, "cannot use "),
    "resource0": (lambda file: file.write_bytes(bytes(100)), "has 100 bytes; the registers"),
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_card_with_damaged_sysfs_files(operator: Operator, card: Card, file: str) -> None:
    damage, told = BROKEN[file]
    damage(card.folder / file)
    sentence = refused(operator)
    assert f"{ADDRESS}/{file}" in sentence
    assert told in sentence


def test_a_card_that_does_not_answer(operator: Operator, card: Card) -> None:
    """The registers are plain memory, so the reset bit stays 1."""
    assert refused(operator).startswith(
        f"port wan (pci:{ADDRESS}): waited 5 s for CTRL.RST to become 0; it is 1 ("
    )


def test_more_queues_than_the_card_has(operator: Operator, card: Card) -> None:
    told = "port.wan.queues: must be an integer from 1 to 16, not 17"
    assert refused(operator, text=f"{CONFIG}queues = 17\n", code=2) == told


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("sim:82598", 'unknown device "sim:82598"; write it as in sim:82599, pci:0000:03'),
        ("eth0", 'unknown device "eth0"; write it as in sim:82599, pci:0000:03:00.0, xdp:eth0'),
        (
            "pci:03:00.0",
            '"pci:03:00.0" is not a PCI address; write it as in pci:0000:03:00.0 (ringline',
        ),
    ],
)
def test_an_invalid_device_string(operator: Operator, device: str, told: str) -> None:
    text = CONFIG.replace(f"pci:{ADDRESS}", device)
    assert refused(operator, text=text, code=2).startswith(f"port.wan.device: {told}")


def test_physical_memory_that_is_not_in_one_piece(operator: Operator, card: Card) -> None:
    """Without an IOMMU a card needs hugepages; normal pages are refused."""
    text = CONFIG.replace('"offset"', '"physical"')
    assert "reserve hugepages" in refused(operator, text=text)
