"""The commands on interfaces and cards of this machine, and their arguments."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable

from ringline.pipeline.configuration.forms import PCI_ADDRESS


def add_commands(command: Callable[[str, Callable[[Namespace], int], str], ArgumentParser]) -> None:
    """`command` adds a command by its name, function and purpose."""
    for name, function, purpose in (
        (
            "interfaces",
            _interfaces,
            "list the network interfaces, and which a port can use",
        ),
        ("devices", _devices, "list the network cards on PCI, and which a port can use"),
        (
            "doctor",
            _doctor,
            "say what of this machine stops a run on a card or slows it down, and what to do",
        ),
    ):
        command(name, function, purpose).add_argument(
            "--json", action="store_true", help="print JSON instead of a table"
        )
    bind = command("bind", _bind, "give a card to vfio-pci, so that a port can use it; needs root")
    bind.add_argument(
        "--driver",
        choices=("vfio-pci", "uio_pci_generic"),
        default="vfio-pci",
        help='uio_pci_generic: for a machine without an IOMMU, with dma = "physical"',
    )
    bind.add_argument(
        "--force",
        action="store_true",
        help="also when its interface is in use: what that does is lost",
    )
    unbind = command("unbind", _unbind, "give a card back to its kernel driver; needs root")
    for parser in (bind, unbind):
        parser.add_argument(
            "address", type=_address, metavar="ADDRESS", help="PCI address, as in 0000:03:00.0"
        )


def _address(text: str) -> str:
    """The address with its domain. The device string of a port is accepted, too."""
    found = text.removeprefix("pci:").lower()
    found = found if found.count(":") > 1 else f"0000:{found}"
    if not re.fullmatch(PCI_ADDRESS, found):
        raise ArgumentTypeError(
            f"must be a PCI address such as 0000:03:00.0, not {text!r} (ringline devices shows "
            "them)"
        )
    return found


def _interfaces(given: Namespace) -> int:
    from ringline.pipeline.commands.interfaces import interfaces

    print(interfaces(given))
    return 0


def _devices(given: Namespace) -> int:
    from ringline.pipeline.commands.devices import devices

    print(devices(given))
    return 0


def _doctor(given: Namespace) -> int:
    from ringline.pipeline.commands.doctor.doctor import doctor

    return doctor(given)


def _bind(given: Namespace) -> int:
    from ringline.pipeline.commands.devices import bind

    print(bind(given))
    return 0


def _unbind(given: Namespace) -> int:
    from ringline.pipeline.commands.devices import unbind

    print(unbind(given))
    return 0
