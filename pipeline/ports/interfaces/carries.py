"""What an interface of the kernel does now, and what is lost when its card is taken away.

A card can be the only way to its machine. So whoever takes a card from its kernel driver asks here
first, and says what will be lost.

Guarantees (tests in tests/pipeline/ports/test_carries.py):
 - what a VLAN, a bridge or a bond on top of an interface does counts as its own
   (test_what_is_on_top_counts_too)
 - a file system of another machine is found by the address of that machine, also when the root
   file system is one (test_a_file_system_over_the_network_is_named)
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from ringline.pipeline.ports.interfaces import guard, netlink

MOUNTS = Path("/proc/self/mounts")
_UP = 0x1  # IFF_UP
_DISCARD = 9  # a port number; nothing is sent to it


def is_up(interface: Path) -> bool:
    """Whether an interface is administratively up: its driver uses the card then, even without
    a link. `interface` is its folder in sysfs."""
    flags = _text(interface / "flags")
    if re.fullmatch(r"0x[0-9a-fA-F]+", flags):
        return bool(int(flags, 16) & _UP)
    return _text(interface / "operstate") == "up"


def _text(path: Path) -> str:
    """What a file of an interface has; "" when there is none, as after its removal."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def carried(interface: Path) -> list[str]:
    """What depends on the interface with this folder in sysfs, as parts of a sentence."""
    name, found = interface.name, []
    owner = (interface / "master").resolve().name if (interface / "master").exists() else ""
    if owner:
        found.append(f"{name} belongs to {owner}")
    above = [
        (upper.name.removeprefix("upper_"), upper.resolve()) for upper in interface.glob("upper_*")
    ]
    found += [f"{upper} receives through {name}" for upper, _ in above if upper != owner]
    found += _of_the_network(interface)
    for _, folder in sorted(above):
        found += carried(folder)
    return found


def _of_the_network(interface: Path) -> Iterator[str]:
    """Addresses, routes, sessions and file systems. A folder that is not the kernel's has no number
    of an interface."""
    with contextlib.suppress(OSError, ValueError):
        number, name = int((interface / "ifindex").read_text()), interface.name
        addresses = netlink.addresses(number)
        if addresses:
            yield f"{name} has the addresses {', '.join(sorted(addresses))}"
        for gateway in guard.default_routes(name):
            yield f"{name} carries the default route through {gateway}"
        session = guard.login(os.environ).get("SSH_CONNECTION", "").split()
        if len(session) == 4 and session[2] in addresses:
            yield f"{name} carries your ssh session from {session[0]}"
        for server, folder in _file_systems():
            if _way_to(server) in addresses:
                what = "the root file system" if folder == "/" else f"the file system at {folder}"
                yield f"{name} carries {what}, which is on {server}"


def _file_systems() -> Iterator[tuple[str, str]]:
    """The addresses of the machines whose file systems are mounted here (NFS, CIFS), and where."""
    for line in MOUNTS.read_text("utf-8", "replace").splitlines():
        fields = line.split(" ")
        if len(fields) > 3 and (server := re.search(r"(?:^|,)addr=([0-9a-fA-F.:]+)", fields[3])):
            yield server[1], fields[1]


def _way_to(server: str) -> str:
    """The own address from which this machine reaches another one; "" when it does not."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
        asking.connect((server, _DISCARD))  # sends nothing
        return str(asking.getsockname()[0])
    return ""
