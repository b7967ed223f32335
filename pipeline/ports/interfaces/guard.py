"""The guard: a port must not cut off the machine by taking an interface that carries it.

It looks at the default routes and at the session of the operator (SSH_CONNECTION), of the interface
and of those that receive through it, a VLAN for example. What it finds is a sentence about what
would be lost; `force = true` overrules it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ringline.pipeline.configuration.config import Match
from ringline.pipeline.ports.interfaces import interface, netlink

ROUTES4, ROUTES6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
_REJECT = 0x200  # RTF_REJECT of linux/route.h
_TCP, _ICMPV6 = 6, 58
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
# Neighbour discovery (RFC 4861) finds a neighbour with frames to and from these addresses.
_DISCOVERY = ("fe80::/10", "ff02::/16")


def cut_off(found: interface.Interface, take: Sequence[Match]) -> str:
    """`objection` for the interface and for those that receive through it."""
    why = objection(found.name, take, number=found.number)
    for name, number in interface.on_top(found):
        if not why and (why := objection(name, take, number=number)):
            why = f"{name}, which receives through {found.name},{why.removeprefix(name)}"
    return why


def objection(
    name: str,
    take: Sequence[Match],
    environment: Mapping[str, str] | None = None,
    addresses: Callable[[int], set[str]] = netlink.addresses,
    number: int = 0,
) -> str:
    """What would be lost if a port took the frames that agree with `take` (empty: all) from the
    interface `name` with this number: the machine's default route or the session of the operator.
    "" when nothing would."""
    session = _session(login(os.environ) if environment is None else environment)
    if session is not None and session[1] in addresses(number):
        client, server, port = session
        if not take or any(_is_of_session(match, client, server, port) for match in take):
            return (
                f"{name} carries your ssh session ({client} to {server}), which would "
                f"hang; leave its frames out of take, or set force = true"
            )
    for gateway in default_routes(name):
        kind = _IPV6 if ":" in gateway else _IPV4
        if not take or any(_is_of_everything(match, kind) for match in take):
            return (
                f"{name} carries the default route of this machine (through {gateway}), which "
                "would lose its network; name the frames for ringline in take, or set force = "
                f"true, or copy them with a port packet:{name}"
            )
    return ""


def default_routes(name: str) -> Iterator[str]:
    """The gateways of the default routes through the interface, those of IPv4 first."""
    for line in _lines(ROUTES4)[1:]:
        words = line.split()
        if len(words) > 7 and words[0] == name and words[1] == words[7] == "00000000":
            yield str(ipaddress.IPv4Address(bytes.fromhex(words[2])[::-1]))
    for line in _lines(ROUTES6):
        words = line.split()
        if len(words) > 9 and words[9] == name and words[1] == "00" and not int(words[0], 16):
            if int(words[8], 16) & _REJECT:
                continue
            yield str(ipaddress.IPv6Address(bytes.fromhex(words[4])))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:  # a kernel without IPv6
        return []


def login(environment: Mapping[str, str], processes: Path = Path("/proc")) -> Mapping[str, str]:
    """The environment, or that of the nearest parent process that has a session: sudo removes
    SSH_CONNECTION."""
    found, pid = dict(environment), os.getppid()
    while "SSH_CONNECTION" not in found and pid > 0:
        folder = processes / str(pid)
        try:
            stat = (folder / "stat").read_text("ascii", "replace")
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
        with contextlib.suppress(OSError):  # a process of somebody else
            pairs = (folder / "environ").read_text("utf-8", "replace").split("\0")
            found = dict(pair.partition("=")[::2] for pair in pairs)
    return found


def _session(environment: Mapping[str, str]) -> tuple[str, str, int] | None:
    """Addresses of the client and the server, and the server's port, of an ssh session."""
    words = environment.get("SSH_CONNECTION", "").split()
    if len(words) != 4 or not words[3].isdigit():
        return None
    return words[0], words[2], int(words[3])


def _is_of_session(match: Match, client: str, server: str, port: int) -> bool:
    """Whether frames of the session, or those that find its neighbour, agree with the match."""
    kind = _IPV6 if ":" in server else _IPV4
    if _is_of_neighbours(match, kind):
        return True
    if match.ethertype not in (None, kind) or match.protocol not in (None, _TCP):
        return False
    if match.port not in (None, port):
        return False
    if match.prefix is None:
        return True
    network = ipaddress.ip_network(match.prefix)
    return any(ipaddress.ip_address(each) in network for each in (client, server))


def _is_of_everything(match: Match, kind: int) -> bool:
    """Whether a match leaves nothing of IPv4 or IPv6, which is `kind`, to the kernel, or takes the
    frames that find a neighbour."""
    if _is_of_neighbours(match, kind):
        return True
    if match.protocol is not None or match.port is not None:
        return False
    if match.prefix is not None:
        network = ipaddress.ip_network(match.prefix)
        return network.prefixlen == 0 and network.version == (6 if kind == _IPV6 else 4)
    return match.ethertype == kind


def _is_of_neighbours(match: Match, kind: int) -> bool:
    """Whether frames agree with the match without which no neighbour of IPv4 or IPv6 is found: ARP,
    or neighbour discovery."""
    if kind == _IPV4:
        return match.ethertype == _ARP
    if match.ethertype not in (None, _IPV6) or match.protocol not in (None, _ICMPV6):
        return False
    if match.port is not None:
        return False
    if match.prefix is None:
        return True
    network = ipaddress.ip_network(match.prefix)
    return network.version == 6 and any(
        network.overlaps(ipaddress.IPv6Network(each)) for each in _DISCOVERY
    )
