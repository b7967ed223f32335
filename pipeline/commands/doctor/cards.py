"""The lines about cards: each network card on PCI, its driver, and whether a port can use it."""

from __future__ import annotations

from collections.abc import Iterator

from ringline.pipeline.commands.devices import Row, row_of
from ringline.pipeline.commands.doctor.findings import HINT, OK, PROBLEM, Finding
from ringline.pipeline.commands.doctor.machine import Machine
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks


def cards(machine: Machine) -> Iterator[Finding]:
    """Each network card."""
    if not machine.network_cards:
        yield Finding(
            OK,
            "no network card on PCI is to be seen here; ports sim:, xdp:, packet:, tap: need none",
        )
    for card in machine.network_cards:
        try:
            yield _card(card)
        except (EnvironmentLacks, OSError) as error:
            yield Finding(HINT, f"{card.address} cannot be read: {error}", "run as root")


def _card(device: PciDevice) -> Finding:
    row = row_of(device)
    found = f"{row.address}, {row.card if row.card != '-' else 'a card'} ({row.id}), "
    found += "has no driver" if row.driver == "-" else f"has the driver {row.driver}"
    figures = {"address": row.address, "driver": device.driver, "usable": row.usable}
    mark, end, remedy = _judged(device, row)
    return Finding(mark, f"{found}; {end}", remedy, figures)


def _judged(device: PciDevice, row: Row) -> tuple[str, str, str]:
    """The mark of a card, the end of the sentence about it, and the remedy."""
    if row.usable == "yes":
        return OK, f"a port pci:{row.address} can use it", ""
    if row.usable == "unproved":
        return HINT, "only a port with unproved = true can use it", row.why
    if row.usable == "physical":
        return HINT, 'only a port with dma = "physical" can use it', row.why
    if row.card == "-":
        names = [folder.name for folder in device.interfaces]
        if names:
            return (
                OK,
                f"no port pci: can use it, but {', '.join(f'xdp:{it}' for it in names)} may",
                "",
            )
        return HINT, "no port can use it", "its kernel driver may make an interface for xdp:"
    if row.driver == "vfio-pci":
        user = device.user
        if user is None:
            return PROBLEM, "no port can use it now", row.why
        remedy = "nothing, if that is your run; else end that process"
        return HINT, f"process {user} uses it", remedy
    return HINT, "no port pci: can use it now", row.why
