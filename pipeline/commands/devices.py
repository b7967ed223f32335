"""`ringline devices`, `bind` and `unbind`: the network cards on PCI, and who has them."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path

from ringline.pipeline.ports.interfaces.carries import is_up
from ringline.pipeline.ports.pci import binding, groups
from ringline.pipeline.ports.pci.known import CARDS, stranger
from ringline.pipeline.ports.pci.sysfs import PciDevice, devices_folder, sysfs_root
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.text import printable

COLUMNS = ("address", "id", "card", "driver", "numa", "group", "link", "usable")


@dataclass(frozen=True)
class Row:
    """A card. `id` is vendor:device, `group` its IOMMU group, "-" without an IOMMU. `link` is that
    of its interface, "-" without one: up, with the speed in Mbit/s, no link, or down, when the
    interface is off, so that the link is not known. `usable` is yes, no, physical: only with
    dma = "physical", or unproved: only with unproved = true. `why` says why not yes."""

    address: str
    id: str
    card: str
    driver: str
    numa: str
    group: str
    link: str
    usable: str
    why: str


def devices(given: Namespace) -> str:
    """The network cards on PCI, as text or, with --json, as JSON."""
    root = sysfs_root()
    rows = []
    for path in sorted(devices_folder(root).glob("*")):
        try:
            device = PciDevice(path.name, root)
            rows += [row_of(device)] if device.network else []
        except (EnvironmentLacks, OSError) as error:  # it was removed just now, or is damaged
            why = f"it cannot be read: {error}"
            rows.append(Row(path.name, "-", "-", "-", "-", "-", "-", usable="no", why=why))
    if given.json:
        return json.dumps({"devices": [asdict(row) for row in rows]})
    if not rows:
        return "this machine has no network card on PCI"
    cells = [COLUMNS, *(tuple(map(printable, list(asdict(row).values())[:-1])) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "\n".join(lines + [f"{row.address}: {printable(row.why)}" for row in rows if row.why])


def row_of(device: PciDevice) -> Row:
    """What is known of a card, and whether a port can use it now."""
    vendor, number = device.identity
    card = CARDS.get((vendor, number))
    usable, why = _usable(device)
    node = device.numa_node
    return Row(
        address=device.address,
        id=f"{vendor:04x}:{number:04x}",
        card=card.name if card else "-",
        driver=device.driver or "-",
        numa="-" if node is None else str(node),
        group=groups.group_of(device) or "-",
        link=", ".join(map(_link, device.interfaces)) or "-",
        usable=usable,
        why=why,
    )


def bind(given: Namespace) -> str:
    """Give a card to vfio-pci, or to uio_pci_generic."""
    device = PciDevice(given.address, sysfs_root())
    return binding.bind(device, given.driver, force=given.force)


def unbind(given: Namespace) -> str:
    """Give a card back."""
    return binding.unbind(PciDevice(given.address, sysfs_root()))


def _usable(device: PciDevice) -> tuple[str, str]:
    card = CARDS.get(device.identity)
    if card is None:
        other = f"; xdp:{device.interfaces[0].name} can use it" if device.interfaces else ""
        return "no", f"there is no driver here for this card{stranger(device)}{other}"
    needs = [] if card.proved else ["a port needs unproved = true, for it was never tried on one"]
    try:
        if device.driver == "vfio-pci":
            if user := device.user:
                return "no", f"process {user} has it"
            groups.check_viable(device)
        elif groups.translates(device):
            in_use = [f"in use: {lost}"] if (lost := device.lost) else []
            bind = f"bind it to VFIO (ringline bind {device.address})"
            return "no", "; ".join([bind, *in_use, *needs])
        else:
            device.check_unused()
            open_ = f"no IOMMU translates its addresses: {groups.remedy(device)}"
            uio = device.driver == binding.UIO
            stops = ["the kernel stops it when ringline ends"] if uio else []
            return "physical", "; ".join([open_, *stops, *needs])
    except EnvironmentLacks as error:
        return "no", str(error)
    return "unproved" if needs else "yes", "".join(needs)


def _link(interface: Path) -> str:
    if not is_up(interface):
        return f"{interface.name} down"
    if _number(interface / "carrier") != 1:
        return f"{interface.name} no link"
    speed = _number(interface / "speed")
    return f"{interface.name} up" + (f" {speed} Mbit/s" if speed > 0 else "")


def _number(path: Path) -> int:
    """What a file of an interface has; -1 when the kernel does not say."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1
