"""The interfaces of the router, from its options: a port, or a VLAN of a port, with its addresses.

The name of an interface is that of its port, or `port.5` for VLAN 5 of the port.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, Any, NamedTuple

from ringline.shm import frames
from ringline.workers.api import PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ringline.workers.api import Worker

INTERFACES_MAX = 256
MTU_LEAST = 1280  # of IPv6 (RFC 8200, 5)

# Nobody on a network has these addresses (RFC 6890).
SPECIAL = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
SPECIAL6 = ("::/128", "::1/128", "fe80::/10", "ff00::/8")

Network = IPv4Network | IPv6Network


class Interface(NamedTuple):
    """vlan: 1 to 4094, or 0 without a tag. mac: a number of 48 bits. mtu: bytes of an IP packet."""

    name: str
    port: int
    vlan: int
    mac: int
    mtu: int
    addresses: list[IPv4Interface | IPv6Interface]

    @property
    def link_local(self) -> IPv6Address:
        """fe80:: with the interface identifier of RFC 4291, appendix A."""
        high, low = self.mac >> 24 ^ 0x020000, self.mac & 0xFFFFFF
        return IPv6Address(0xFE80 << 112 | high << 40 | 0xFFFE << 24 | low)

    def source4(self) -> int:
        """The first IPv4 address, as a number; 0 without one."""
        return next((int(each.ip) for each in self.addresses if each.version == 4), 0)

    def source6(self) -> int:
        """The first IPv6 address, else the link-local one."""
        own = (int(each.ip) for each in self.addresses if each.version == 6)
        return next(own, int(self.link_local))


# The first bits of those addresses as a number, and how many bits these are, by the version of IP.
_SPECIAL_BITS = {
    version: [
        (int(each.network_address) >> each.max_prefixlen - each.prefixlen, each.prefixlen)
        for each in map(ip_network, texts)
    ]
    for version, texts in ((4, SPECIAL), (6, SPECIAL6))
}


def is_special(network: Network) -> bool:
    """Whether a network lies in one of SPECIAL or SPECIAL6."""
    first, length, most = int(network.network_address), network.prefixlen, network.max_prefixlen
    return any(
        length >= bits and first >> most - bits == begin
        for begin, bits in _SPECIAL_BITS[network.version]
    )


def interfaces_of(worker: Worker) -> list[Interface]:
    """The interfaces that the options addresses, macs and mtus describe. Raises PluginError."""
    options = worker.options
    macs = {_port(worker, "macs", name): _mac(name, text) for name, text in options["macs"].items()}
    made: list[Interface] = []
    for name, texts in options["addresses"].items():
        port, vlan = _place(worker, "addresses", name)
        if not isinstance(texts, list) or not texts:
            raise PluginError(
                f"the option addresses.{name} must be a list of addresses with their lengths, such "
                f'as ["192.0.2.1/24"], not {texts!r}'
            )
        addresses = [_address(name, text) for text in texts]
        mac = macs.get(port) or _default_mac(worker, options["addresses"], port, addresses)
        mtu = options["mtus"].get(name, frames.MTU)
        if type(mtu) is not int or not MTU_LEAST <= mtu <= frames.MTU_MAX:
            raise PluginError(
                f"the option mtus.{name} must be an integer, {MTU_LEAST} to {frames.MTU_MAX}, "
                f"not {mtu!r}"
            )
        made.append(Interface(name, port, vlan, mac, mtu, addresses))
    if not 1 <= len(made) <= INTERFACES_MAX:
        raise PluginError(
            f"the option addresses must have 1 to {INTERFACES_MAX} interfaces, not {len(made)}"
        )
    for name in options["mtus"]:
        if name not in options["addresses"]:
            raise PluginError(f"the option mtus names {name!r}, which has no addresses")
    _check_networks(made)
    return made


def _place(worker: Worker, option: str, name: str) -> tuple[int, int]:
    """The port and the VLAN that the name of an interface means."""
    if name in worker.ports:
        return worker.ports[name], 0
    port, dot, digits = name.rpartition(".")
    if not dot or port not in worker.ports:
        raise PluginError(
            f"the option {option} names {name!r}, and there is no such port; the ports are "
            f"{', '.join(worker.ports)}, and VLAN 5 of a port is named as in "
            f"{next(iter(worker.ports))}.5"
        )
    vlan = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 4 else 0
    if not 1 <= vlan <= 4094 or digits != str(vlan):
        raise PluginError(
            f"the option {option} names {name!r}: a VLAN must be 1 to 4094, not {digits}"
        )
    return worker.ports[port], vlan


def _port(worker: Worker, option: str, name: str) -> int:
    if name not in worker.ports:
        raise PluginError(
            f"the option {option} names the port {name!r}, which does not exist; the ports are "
            f"{', '.join(worker.ports)}"
        )
    return worker.ports[name]


def _mac(name: str, text: Any) -> int:
    pieces = text.split(":") if isinstance(text, str) else []
    try:
        number = int.from_bytes(bytes.fromhex("".join(pieces)), "big")
    except ValueError:
        number = 0
    whole = len(pieces) == 6 and all(len(piece) == 2 for piece in pieces)
    if not whole or not number or number >> 40 & 1:
        raise PluginError(
            f"the option macs.{name} must be the address of one station, such as "
            f'"02:00:00:00:00:01", not {text!r}'
        )
    return number


def _default_mac(
    worker: Worker,
    given: Mapping[str, Any],
    port: int,
    addresses: list[IPv4Interface | IPv6Interface],
) -> int:
    """02:00 and the first IPv4 address of the port, 02:01 and the last 32 bits of its first IPv6
    address. Nobody else on the link has that address, so nobody has this one."""
    name = [*worker.ports][port]
    first = given.get(name)
    if isinstance(first, list) and first:  # a VLAN has the address of its port
        addresses = [_address(name, text) for text in first]
    own = next((each for each in addresses if each.version == 4), addresses[0])
    kind = 0x0200 if own.version == 4 else 0x0201
    return kind << 32 | int(own.ip) & 0xFFFFFFFF


def _address(name: str, text: Any) -> IPv4Interface | IPv6Interface:
    try:
        if not isinstance(text, str) or "/" not in text or "%" in text:
            raise ValueError
        found = ip_interface(text)
    except ValueError:
        raise PluginError(
            f"the option addresses.{name} has {text!r}, which must be an address and the length of "
            'its network, such as "192.0.2.1/24" or "2001:db8::1/64"'
        ) from None
    network = found.network
    wide = network.max_prefixlen - network.prefixlen >= 2
    ends = (network.network_address, network.broadcast_address)
    if is_special(type(network)(found.ip)):
        raise PluginError(
            f"the option addresses.{name} has {text}, which cannot be the address of a station"
        )
    if wide and (found.ip in ends if found.version == 4 else found.ip == ends[0]):
        raise PluginError(
            f"the option addresses.{name} has {text}, which is an address of the whole network "
            f"{network}, and not that of a station"
        )
    return found


def _check_networks(made: list[Interface]) -> None:
    """Raise PluginError when two interfaces have the same network, or one address comes twice."""
    networks: dict[Network, str] = {}
    addresses: dict[Any, str] = {}
    for interface in made:
        for each in interface.addresses:
            if (there := addresses.setdefault(each.ip, interface.name)) != interface.name:
                raise PluginError(
                    f"the option addresses gives {each.ip} to {there} and to {interface.name}"
                )
            if (there := networks.setdefault(each.network, interface.name)) != interface.name:
                raise PluginError(
                    f"the option addresses puts the network {each.network} at {there} and at "
                    f"{interface.name}; each network must be at one interface"
                )
