"""Which driver of ringline drives which card, by vendor and device ID.

A card is proved when frames have passed on a model that has its ID: one of QEMU, or the card of
`ringline serve-card`. 154d and 1557 are the 82599 of 10fb on other boards: Linux's driver treats
the three alike, and on the served card they differ in nothing but the ID. A transitional virtio-net
is a modern one, with an interface for older drivers beside it.

A relative has the same registers as a card that is proved, as far as its datasheet and Linux's
driver say, but nothing has run on one or on a model of one. It is refused unless the port has
`unproved = true`. On a proved card this key changes nothing: what a driver does otherwise follows
the device ID.

Guarantees (tests in tests/guest/test_same_chip.py):
 - frames pass on 154d and 1557 (test_frames_pass_on_an_82599_with_another_id)
 - frames pass on a transitional virtio-net (test_frames_pass_on_a_transitional_virtio_net)
"""

from __future__ import annotations

from dataclasses import dataclass

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks

INTEL = 0x8086
VIRTIO = 0x1AF4


@dataclass(frozen=True)
class Known:
    """A card: the folder of its driver below pipeline/ports, its name, and whether it is proved,
    see above."""

    driver: str
    name: str
    proved: bool = True


# The IDs are those of Linux (ixgbe_type.h; e1000e/hw.h; igb/e1000_hw.h), and of Virtio 1.2 (4.1.2).
CARDS = {
    (INTEL, 0x10FB): Known("ixgbe", "Intel 82599 (SFI, SFP+)"),
    (INTEL, 0x154D): Known("ixgbe", "Intel 82599 (SFP+, SF2)"),
    (INTEL, 0x1557): Known("ixgbe", "Intel 82599EN (SFP+)"),
    (INTEL, 0x10F7): Known("ixgbe", "Intel 82599 (KX4 backplane)"),
    (INTEL, 0x10F8): Known("ixgbe", "Intel 82599 (combined backplane)", proved=False),
    (INTEL, 0x10F9): Known("ixgbe", "Intel 82599 (CX4)", proved=False),
    (INTEL, 0x10FC): Known("ixgbe", "Intel 82599 (XAUI)", proved=False),
    (INTEL, 0x1507): Known("ixgbe", "Intel 82599 (SFP+, EM)", proved=False),
    (INTEL, 0x154A): Known("ixgbe", "Intel 82599 (four SFP+)", proved=False),
    (INTEL, 0x1528): Known("ixgbe", "Intel X540", proved=False),
    (INTEL, 0x10D3): Known("e1000e", "Intel 82574L"),
    (INTEL, 0x10F6): Known("e1000e", "Intel 82574LA", proved=False),
    (VIRTIO, 0x1041): Known("virtio", "virtio-net"),
    (VIRTIO, 0x1000): Known("virtio", "virtio-net (transitional)"),
    (INTEL, 0x150C): Known("e1000e", "Intel 82583V", proved=False),
    (INTEL, 0x10C9): Known("igb", "Intel 82576"),
    (INTEL, 0x10E8): Known("igb", "Intel 82576 (four ports)", proved=False),
    (INTEL, 0x1526): Known("igb", "Intel 82576 (four ports, ET2)", proved=False),
    (INTEL, 0x150A): Known("igb", "Intel 82576NS", proved=False),
}


# Cards that look like those above, and have other registers, or only a part of them.
STRANGERS = {
    (INTEL, 0x10ED): "a virtual function of an Intel 82599",
    (INTEL, 0x1515): "a virtual function of an Intel X540",
    (INTEL, 0x1563): "an Intel X550",
    (INTEL, 0x1565): "a virtual function of an Intel X550",
    (INTEL, 0x10C6): "an Intel 82598",
    (INTEL, 0x10CA): "a virtual function of an Intel 82576",
    (INTEL, 0x1521): "an Intel I350",
    (INTEL, 0x1533): "an Intel I210",
    (INTEL, 0x100E): "an Intel 82540EM (e1000)",
}


def stranger(device: PciDevice) -> str:
    """What a card is that no driver here drives, after its ID in a sentence; "" if unknown."""
    name = STRANGERS.get(device.identity, "")
    return f" ({name})" if name else ""


def driver_of(config: PortConfig, device: PciDevice) -> str:
    """The driver for the card of a port. Raises EnvironmentLacks when there is none, or when the
    card is a relative that the port does not ask for."""
    vendor, number = device.identity
    found = CARDS.get((vendor, number))
    where = f"port.{config.name}: PCI device {device.address} is"
    if found is None:
        proved = ", ".join(f"{v:04x}:{d:04x}" for (v, d), it in sorted(CARDS.items()) if it.proved)
        raise EnvironmentLacks(
            f"{where} {vendor:04x}:{number:04x}{stranger(device)}, for which there is no driver "
            f"here; there is one for {proved}"
            + ("" if not device.interfaces else f"; xdp:{device.interfaces[0].name} can use it")
        )
    if not found.proved and not config.unproved:
        raise EnvironmentLacks(
            f"{where} an {found.name} ({vendor:04x}:{number:04x}): the driver {found.driver} "
            "should drive it, but it was never tried on one; set unproved = true to try it"
        )
    return found.driver
