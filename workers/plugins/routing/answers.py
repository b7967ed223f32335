"""What the router says itself: ARP, neighbour discovery, ICMP echo and ICMP errors.

Each function writes into a frame that has the right length already. `at` is the offset of what
follows the Ethernet header: 14, or 18 behind a tag.
"""

from __future__ import annotations

from typing import Any

from ringline.workers.api import checksum, field, set_field, update_checksum
from ringline.workers.plugins.helper import helper

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
GROUP = 1 << 40  # the bit of the MAC addresses of more than one station
BROADCAST = (1 << 48) - 1

# RFC 826, and RFC 4861 section 4 with the offsets from the ICMPv6 header.
ARP_HEAD = 0x0001080006040000  # Ethernet, IPv4, their lengths; and the operation
ARP_BYTES = 28
SOLICITATION, ADVERTISEMENT = 135, 136
TARGET, OPTIONS = 8, 24
SOURCE_OPTION, TARGET_OPTION = 1, 2  # a link-layer address, 8 bytes with their head
ND_BYTES = 32  # with one such option
ROUTER_SOLICITED_OVERRIDE = 0xE0000000
ROUTER_OVERRIDE = 0xA0000000
ALL_NODES_HIGH, ALL_NODES_LOW = (0xFF02 << 48) - (1 << 64), 1
SOLICITED_LOW = 0x1FF000000  # the low half of ff02::1:ff00:0/104 (RFC 4291 2.7.1)

ICMPV6 = 58
HOPS = 64  # time to live of what the router says
ND_HOPS = 255
QUOTED4, QUOTED6 = 548, 1232  # so that an error has 576 bytes (RFC 1812 4.3.2.3), 1280 (RFC 4443)
ERROR4, ERROR6 = 28, 48  # bytes of the IP header and the ICMP header before what is quoted


@helper
def write_ethernet(frame: Any, target: Any, source: Any, vlan: Any, kind: Any) -> Any:
    """Write the Ethernet header, with a tag unless `vlan` is 0; returns the offset behind it."""
    set_field(frame, 0, 6, target)
    set_field(frame, 6, 6, source)
    at = 14
    if vlan:
        set_field(frame, 12, 4, 0x81000000 | vlan)
        at = 18
    set_field(frame, at - 2, 2, kind)
    return at


@helper
def write_arp(
    frame: Any, at: Any, operation: Any, mac: Any, own: Any, their_mac: Any, their: Any
) -> None:
    set_field(frame, at, 8, ARP_HEAD | operation)
    set_field(frame, at + 8, 6, mac)
    set_field(frame, at + 14, 4, own)
    set_field(frame, at + 18, 6, their_mac)
    set_field(frame, at + 24, 4, their)
    for i in range(at + ARP_BYTES, len(frame)):
        frame[i] = 0


@helper
def sum6(frame: Any, at: Any, bytes_: Any) -> Any:
    """The sum of the pseudo header of ICMPv6 (RFC 8200 8.1), as the first term of a checksum."""
    return (0xFFFF ^ checksum(frame, at + 8, at + 40)) + bytes_ + ICMPV6


@helper
def write_ipv6(frame: Any, at: Any, bytes_: Any, hops: Any) -> None:
    """The first 8 bytes of an IPv6 header before `bytes_` bytes of ICMPv6."""
    set_field(frame, at, 4, 0x60000000)
    set_field(frame, at + 4, 2, bytes_)
    set_field(frame, at + 6, 2, ICMPV6 << 8 | hops)


@helper
def write_nd(
    frame: Any,
    at: Any,
    kind: Any,
    flags: Any,
    source: Any,
    target: Any,
    subject: Any,
    mac: Any,
) -> None:
    """A solicitation or an advertisement of the address `subject`; an address is two words."""
    write_ipv6(frame, at, ND_BYTES, ND_HOPS)
    set_field(frame, at + 8, 8, source[0])
    set_field(frame, at + 16, 8, source[1])
    set_field(frame, at + 24, 8, target[0])
    set_field(frame, at + 32, 8, target[1])
    icmp = at + 40
    set_field(frame, icmp, 4, kind << 24)
    set_field(frame, icmp + 4, 4, flags)
    set_field(frame, icmp + TARGET, 8, subject[0])
    set_field(frame, icmp + TARGET + 8, 8, subject[1])
    option = TARGET_OPTION if kind == ADVERTISEMENT else SOURCE_OPTION
    set_field(frame, icmp + OPTIONS, 2, option << 8 | 1)
    set_field(frame, icmp + OPTIONS + 2, 6, mac)
    for i in range(icmp + ND_BYTES, len(frame)):
        frame[i] = 0
    end = icmp + ND_BYTES
    set_field(frame, icmp + 2, 2, checksum(frame, icmp, end, sum6(frame, at, ND_BYTES)))


@helper
def link_address(frame: Any, icmp: Any, end: Any, wanted: Any) -> Any:
    """The MAC address in the option `wanted` of a message of neighbour discovery; -1 without one,
    or when the options are wrong (RFC 4861 4.6)."""
    found, at = -1, icmp + OPTIONS
    while at + 8 <= end:
        size = 8 * field(frame, at + 1, 1)
        if size == 0 or at + size > end:
            return -1
        if field(frame, at, 1) == wanted and size == 8:
            found = field(frame, at + 2, 6)
        at += size
    return found if at == end else -1


@helper
def echo4(frame: Any, l3: Any, l4: Any) -> None:
    """Turn an echo request for the router into the reply."""
    source, target = field(frame, l3 + 12, 4), field(frame, l3 + 16, 4)
    set_field(frame, l3 + 12, 4, target)
    set_field(frame, l3 + 16, 4, source)
    before = field(frame, l3 + 8, 2)
    after = HOPS << 8 | before & 0xFF
    set_field(frame, l3 + 8, 2, after)
    update_checksum(frame, l3 + 10, before, after)
    set_field(frame, l4, 1, 0)
    update_checksum(frame, l4 + 2, 0x0800, 0)


@helper
def echo6(frame: Any, l3: Any, l4: Any) -> None:
    for at in range(l3 + 8, l3 + 24):
        frame[at], frame[at + 16] = frame[at + 16], frame[at]
    set_field(frame, l3 + 7, 1, HOPS)
    set_field(frame, l4, 1, 129)
    update_checksum(frame, l4 + 2, 128 << 8, 129 << 8)


@helper
def error4(frame: Any, at: Any, kind: Any, code: Any, extra: Any, source: Any, quoted: Any) -> None:
    """An ICMP error (RFC 792) about the packet that is behind its room already."""
    total = ERROR4 + quoted
    sender = field(frame, at + ERROR4 + 12, 4)
    set_field(frame, at, 4, 0x45C00000 | total)  # internetwork control (RFC 1812 4.3.2.5)
    set_field(frame, at + 4, 4, 0)
    set_field(frame, at + 8, 4, HOPS << 24 | 1 << 16)
    set_field(frame, at + 12, 4, source)
    set_field(frame, at + 16, 4, sender)
    set_field(frame, at + 10, 2, checksum(frame, at, at + 20))
    set_field(frame, at + 20, 4, kind << 24 | code << 16)
    set_field(frame, at + 24, 4, extra)
    set_field(frame, at + 22, 2, checksum(frame, at + 20, at + total))


@helper
def error6(
    frame: Any,
    at: Any,
    kind: Any,
    code: Any,
    extra: Any,
    high: Any,
    low: Any,
    quoted: Any,
) -> None:
    """The same of ICMPv6 (RFC 4443 section 3)."""
    total = 8 + quoted
    sender = field(frame, at + ERROR6 + 8, 8), field(frame, at + ERROR6 + 16, 8)
    write_ipv6(frame, at, total, HOPS)
    set_field(frame, at + 8, 8, high)
    set_field(frame, at + 16, 8, low)
    set_field(frame, at + 24, 8, sender[0])
    set_field(frame, at + 32, 8, sender[1])
    icmp = at + 40
    set_field(frame, icmp, 4, kind << 24 | code << 16)
    set_field(frame, icmp + 4, 4, extra)
    set_field(frame, icmp + 2, 2, checksum(frame, icmp, icmp + total, sum6(frame, at, total)))
