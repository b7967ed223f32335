"""The routes: of the file, of the own addresses, and of what is never forwarded.

One prefix table answers for every address. Its value is a row of `hops`, which says what to do:
deliver to the target itself, send to a next hop, or why not.

A line of the file is `prefix,interface,next hop`; the next hop is an address on a network of
that interface, or `direct` when the targets are themselves there. What follows a # is left out.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Any

import numpy as np

from ringline.workers.api import PluginError
from ringline.workers.plugins.routing.interfaces import SPECIAL, SPECIAL6, is_special

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ringline.workers.api import Prefixes, Worker
    from ringline.workers.plugins.routing.interfaces import Interface, Network

# What becomes of a packet for an address: the kinds of a hop. The last ones are drop reasons, by
# their place in REASONS of router.py.
DIRECT, VIA, OWN = 0, 1, 2
MARTIAN, LINK_LOCAL, MULTICAST, BROADCAST = 3, 4, 5, 6

# The columns of `hops`: the kind, the interface, the next hop (IPv4: the low word), and the own
# IPv4 address there.
KIND, INTERFACE, HIGH, LOW, SOURCE = range(5)

WRONG_LINES = 20  # so many are named; more are counted
LINES_MAX = 1 << 20
_KINDS = (MARTIAN, MARTIAN, LINK_LOCAL, MULTICAST, MARTIAN)
_KINDS6 = (MARTIAN, MARTIAN, LINK_LOCAL, MULTICAST)

Row = tuple[int, int, int, int, int]


class Routes:
    """Collects prefixes and their rows."""

    def __init__(self, interfaces: list[Interface]) -> None:
        self._interfaces = {each.name: number for number, each in enumerate(interfaces)}
        self._all = interfaces
        self._rows: dict[Row, int] = {}
        self._found: dict[Network, int] = {}
        self._whence: dict[Network, str] = {}
        self._hops: dict[tuple[int, int, str], tuple[int, int]] = {}  # many lines name the same
        for text, kind in (
            *zip(SPECIAL, _KINDS, strict=True),
            *zip(SPECIAL6, _KINDS6, strict=True),
        ):
            self._add(ip_network(text), kind)
        self._add(IPv4Network("255.255.255.255"), BROADCAST)
        for number, interface in enumerate(interfaces):
            for each in interface.addresses:
                network = each.network
                source = int(each.ip) if each.version == 4 else 0
                self._add(network, DIRECT, number, source=source)
                self._whence[network] = f"is the network of {interface.name}"
                for end in (network.network_address, network.broadcast_address):
                    if _is_broadcast(end, network):
                        self._add(IPv4Network(end), BROADCAST, number)
        for number, interface in enumerate(interfaces):
            for each in interface.addresses:
                own = type(each.network)(each.ip)
                self._add(own, OWN, number)
                self._whence[own] = f"is an address of {interface.name}"

    def _add(
        self,
        network: Network,
        kind: int,
        interface: int = 0,
        hop: int = 0,
        source: int = 0,
    ) -> None:
        row = kind, interface, hop >> 64, hop & (1 << 64) - 1, source
        self._found[network] = self._rows.setdefault(row, len(self._rows))

    def read(self, path: Path) -> None:
        """Add the lines of a file. Raises PluginError that names the wrong lines."""
        wrong: list[str] = []
        try:
            # Some editors begin a file with a byte order mark.
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    text = line.partition("#")[0].strip()
                    if number > LINES_MAX:
                        raise PluginError(f"{path}: more than {LINES_MAX} lines")
                    if not text:
                        continue
                    try:
                        self._line(text, f"line {number}")
                    except ValueError as error:
                        wrong.append(f"line {number}: {error}")
        except UnicodeDecodeError as error:
            raise PluginError(
                f"{path}: the file is not text in UTF-8, because of the byte "
                f"0x{error.object[error.start]:02x}"
            ) from None
        if wrong:
            more = f"; and {len(wrong) - WRONG_LINES} more" if len(wrong) > WRONG_LINES else ""
            raise PluginError(f"{path}: " + "; ".join(wrong[:WRONG_LINES]) + more)

    def _line(self, text: str, place: str) -> None:
        """Add a route. Raises ValueError."""
        pieces = [piece.strip() for piece in text.split(",")]
        if len(pieces) != 3:
            raise ValueError(
                "must be a prefix, an interface and a next hop, such as "
                f"10.0.0.0/8,lan,192.0.2.7, not {_short(text)!r}"
            )
        network = _network(pieces[0])
        if network in self._whence:
            raise ValueError(f"{network} {self._whence[network]}")
        if pieces[1] not in self._interfaces:
            raise ValueError(
                f"there is no interface {_short(pieces[1])!r}; those with addresses are "
                f"{', '.join(self._interfaces)}"
            )
        number = self._interfaces[pieces[1]]
        interface = self._all[number]
        if pieces[2] == "direct":
            source = interface.source4()
            if network.version == 4 and not source:
                raise ValueError(f"{interface.name} has no IPv4 address, and direct needs one")
            self._add(network, DIRECT, number, source=source if network.version == 4 else 0)
        else:
            key = network.version, number, pieces[2]
            if key not in self._hops:
                self._hops[key] = self._hop(network, interface, pieces[2])
            hop, source = self._hops[key]
            self._add(network, VIA, number, hop, source)
        self._whence[network] = f"has a route in {place} already"

    def _hop(self, network: Network, interface: Interface, text: str) -> tuple[int, int]:
        """The next hop, and the own IPv4 address in its network."""
        try:
            hop = ip_address(text)
        except ValueError:
            raise ValueError(
                f"the next hop must be an address or direct, not {_short(text)!r}"
            ) from None
        if hop.version != network.version:
            raise ValueError(f"the next hop {hop} is not of IPv{network.version} as {network}")
        for each in interface.addresses:
            if hop == each.ip:
                raise ValueError(f"the next hop {hop} is the router's own address")
            if hop in each.network:
                if _is_broadcast(hop, each.network):
                    raise ValueError(f"the next hop {hop} is a broadcast address")
                return int(hop), int(each.ip) if each.version == 4 else 0
        if isinstance(hop, IPv6Address) and hop in IPv6Network("fe80::/10"):
            return int(hop), 0
        raise ValueError(f"the next hop {hop} is in no network of {interface.name}")

    def tables(self, worker: Worker) -> tuple[Prefixes, NDArray[np.int64]]:
        """The prefix table, and the rows that its values name."""
        pairs = [(str(network), row) for network, row in self._found.items()]
        ipv6 = sum(network.version == 6 for network in self._found)
        table = worker.prefixes("routes", ipv4=_room(len(pairs) - ipv6), ipv6=_room(ipv6))
        table.fill(pairs)
        rows = np.array([*self._rows], dtype=np.uint64).astype(np.int64)
        return table, rows


def _room(count: int) -> int:
    """Room for so many prefixes, and for some more after a change: named state keeps its size."""
    return max(64, 1 << (count - 1).bit_length())


def _is_broadcast(address: IPv4Address | IPv6Address, network: Network) -> bool:
    """Whether an address means all stations of its network: RFC 919, and RFC 1122 3.3.6 for the
    first one. A network of two addresses has none (RFC 3021)."""
    ends = network.network_address, network.broadcast_address
    return network.version == 4 and network.prefixlen < 31 and address in ends


def _network(text: str) -> Any:
    try:
        network = ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            first = ip_network(text, strict=False)
            raise ValueError(f"{text!r} has bits set after its length: write {first}") from None
        raise ValueError(f"{_short(text)!r} is not an IPv4 or IPv6 prefix") from None
    if is_special(network):
        raise ValueError(f"{network} is never forwarded")
    return network


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
