"""The keys of a port on a network interface of the kernel, by its kind, as in `xdp:NAME`."""

from __future__ import annotations

import ipaddress
from typing import Any

from ringline.pipeline.configuration.config import (
    Match,
    PacketConfig,
    TapConfig,
    XdpConfig,
)
from ringline.pipeline.configuration.toml import Table, shown
from ringline.shm import frames

ETHERTYPES = {"ipv4": 0x0800, "arp": 0x0806, "ipv6": 0x86DD}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmpv6": 58, "sctp": 132}
VLAN_TAGS = (0x8100, 0x88A8)  # at most two are skipped
WITH_PORTS = (PROTOCOLS["tcp"], PROTOCOLS["udp"])
MATCHES_MAX = 64
BUSY_POLL_MAX = 1000  # microseconds
BLOCK_WAIT_MAX = 100  # ms

KEYS = {
    "xdp": ("mode", "attach", "take", "hash", "busy_poll_us", "channels", "fix_checksums", "force"),
    "packet": ("outgoing", "qdisc_bypass", "block_timeout_ms"),
    "tap": ("mtu", "addresses", "up"),
}
EXAMPLES = {"tap": "tap0"}  # names in messages
# Keys of other ports, and why an interface of the kernel has none of them.
_OF_CARDS = {
    "dma": "the kernel reaches packet memory by itself; remove dma",
    "mac": "set the address of the interface: ip link set dev NAME address MAC",
    "more_macs": "give the interface more addresses: ip maddress add MAC dev NAME",
    "vlan_strip": "frames keep their VLAN tag here; remove vlan_strip",
    "vlan_filter": "the kernel receives for all VLANs here; remove vlan_filter",
}
_ALSO_OF_CARDS = ("mtu",)
_NOT_OF_TAP = {
    "promiscuous": "a TAP receives every frame that the kernel sends; remove promiscuous",
    "rss_key": "the kernel chooses the queue of a TAP; remove rss_key",
}
TAP_MTU_MIN = 68  # bytes: ETH_MIN_MTU of linux/if_ether.h
TAP_ADDRESSES_MAX = 64


def refuse_keys_of_others(table: Table, device: str) -> None:
    """Each key in the table of a port that only ports of another kind have is a mistake."""
    kind = device.partition(":")[0]
    if table.values.get("unproved") is True and kind != "pci":
        table.problem("unproved", "only a card as in pci:0000:03:00.0 has this key")
    for key in dict.fromkeys(key for keys in KEYS.values() for key in keys):
        if key in table and key not in KEYS.get(kind, ()) and key not in _ALSO_OF_CARDS:
            table.raw(key)
            with_it = " or ".join(
                f"{other}:{EXAMPLES.get(other, 'eth0')}" for other in KEYS if key in KEYS[other]
            )
            table.problem(key, f"only a network interface as in {with_it} has this key")
    for key, why in _OF_CARDS.items() if kind in KEYS else ():
        if key in table and (kind, key) != ("tap", "mac"):
            table.problem(key, why)
    if kind in ("xdp", "packet") and "mtu" in table:
        table.raw("mtu")
        table.problem(
            "mtu",
            f"a port on an interface of the kernel receives frames of an MTU of at most "
            f"{frames.MTU}; only a card or a TAP has this key",
        )
    for key, why in _NOT_OF_TAP.items() if kind == "tap" else ():
        if key in table:
            table.problem(key, why)


def read_keys(table: Table, device: str) -> dict[str, Any]:
    """The fields of a `PortConfig` for an interface of the kernel, by name."""
    return {
        "xdp": read_xdp(table, device),
        "packet": read_packet(table, device),
        "tap": read_tap(table, device),
    }


def read_xdp(table: Table, device: str) -> XdpConfig | None:
    """The keys of AF_XDP in the table of a port; None for a port of another kind."""
    if not device.startswith("xdp:"):
        return None
    read = XdpConfig(
        mode=table.choice("mode", "copy", ("copy", "zero-copy", "auto")),
        attach=table.choice("attach", "auto", ("auto", "native", "generic")),
        take=_take(table),
        hash=table.choice("hash", "none", ("none", "software")),
        busy_poll_us=table.integer("busy_poll_us", 0, 0, BUSY_POLL_MAX),
        channels=table.choice("channels", "check", ("check", "set")),
        fix_checksums=table.flag("fix_checksums", False),
        force=table.flag("force", False),
    )
    if "rss_key" in table and read.hash != "software":
        table.problem(
            "rss_key", 'has no effect without hash = "software"; add it or remove rss_key'
        )
    return read


def read_packet(table: Table, device: str) -> PacketConfig | None:
    """The keys of packet sockets in the table of a port; None for a port of another kind."""
    if not device.startswith("packet:"):
        return None
    if "rss_key" in table:
        table.problem(
            "rss_key", "the kernel spreads flows by a hash of its own here; remove rss_key"
        )
    return PacketConfig(
        outgoing=table.flag("outgoing", True),
        qdisc_bypass=table.flag("qdisc_bypass", False),
        block_timeout_ms=table.integer("block_timeout_ms", 1, 1, BLOCK_WAIT_MAX),
    )


def read_tap(table: Table, device: str) -> TapConfig | None:
    """The keys of a TAP in the table of a port; None for a port of another kind."""
    if not device.startswith("tap:"):
        return None
    return TapConfig(
        mtu=table.integer("mtu", TapConfig.mtu, TAP_MTU_MIN, frames.MTU_MAX),
        addresses=_addresses(table),
        up=table.flag("up", True),
    )


def _addresses(table: Table) -> tuple[str, ...]:
    value = table.raw("addresses")
    if value is None:
        return ()
    wanted = 'must be a list of addresses with their prefix length, as in ["192.0.2.1/24"]'
    if not isinstance(value, list) or len(value) > TAP_ADDRESSES_MAX:
        table.problem("addresses", f"{wanted}, not {shown(value)}")
        return ()
    for each in value:
        if not isinstance(each, str) or "/" not in each or not _is_address(each):
            table.problem("addresses", f"{wanted}; {shown(each)} is none")
            return ()
    return tuple(dict.fromkeys(value))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "%" not in text  # an address with a zone


def _take(table: Table) -> tuple[Match, ...]:
    value = table.raw("take")
    if value is None or value == "all":
        return ()
    wanted = 'must be "all" or a list of tables such as { protocol = "udp", port = 4789 }'
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        table.problem("take", f"{wanted}, not {shown(value)}")
        return ()
    if not value or len(value) > MATCHES_MAX:
        table.problem("take", f"must have 1 to {MATCHES_MAX} tables, not {len(value)}")
        return ()
    return tuple(
        _match(Table(each, f"{table.at('take')}[{at}]", table.problems))
        for at, each in enumerate(value)
    )


def _match(table: Table) -> Match:
    match = Match(
        ethertype=_number(table, "ethertype", ETHERTYPES, 0x0600, 0xFFFF),
        protocol=_number(table, "protocol", PROTOCOLS, 0, 255),
        port=table.optional_integer("port", 1, 65535),
        prefix=table.optional_string("prefix", check=_check_prefix),
    )
    table.done()
    if not table.values:
        table.problems.append(
            f"{table.path}: says nothing; name an ethertype, protocol, port or prefix, or write "
            'take = "all"'
        )
    impossible = _impossible(match)
    if impossible:
        table.problems.append(f"{table.path}: no frame agrees: {impossible}")
    return match


def _number(table: Table, key: str, names: dict[str, int], low: int, high: int) -> int | None:
    value: Any = table.raw(key)
    if value is None:
        return None
    if isinstance(value, str) and value in names:
        return names[value]
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    table.problem(
        key, f"must be {', '.join(names)} or an integer from {low} to {high}, not {shown(value)}"
    )
    return None


def _check_prefix(text: str) -> str | None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return f"must be a prefix as in 192.0.2.0/24 or 2001:db8::/32, not {shown(text)} ({error})"
    return None


def _impossible(match: Match) -> str:
    """Why no frame can agree with a match, or ""."""
    version = 0 if match.prefix is None else ipaddress.ip_network(match.prefix).version
    of_ip = (ETHERTYPES["ipv4"], ETHERTYPES["ipv6"])
    if match.port is not None and match.protocol not in (None, *WITH_PORTS):
        return "only TCP and UDP have ports"
    if match.ethertype in VLAN_TAGS:
        return "this is the ethertype of a VLAN tag; name the one behind the tag"
    if match.ethertype is not None:
        if match.ethertype not in of_ip and (match.protocol, match.port, version) != (
            None,
            None,
            0,
        ):
            return "only IPv4 and IPv6 have protocols, ports and addresses"
        if version and match.ethertype != of_ip[version == 6]:
            return f"the prefix is of IPv{version}, and the ethertype is not"
    return ""
