"""Makes up an Ethernet header for packets that were captured without one.

Each link layer has a function that finds the EtherType and where the network packet begins. The
source address is the one that the capture holds, if it is a MAC address. Other addresses are
locally administered ones; a multicast packet gets the address that its IP address maps to
(RFC 1112, 6.4, and RFC 2464, 7). Sources: tcpdump.org/linktypes.html and the pages that it names;
linux/if_packet.h and linux/if_arp.h for cooked captures; linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

# Locally administered; a simulated card has this first address too.
RECEIVER = bytes.fromhex("020000000001")
SENDER = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6

IPV4 = 0x0800
IPV6 = 0x86DD

_TYPE_MIN = 0x0600  # smaller numbers in the place of an EtherType are lengths (IEEE 802.3)


class Begin(NamedTuple):
    """Where a network packet begins.

    skip: bytes before it.
    ethertype: its protocol. Below 0x0600: it is an IEEE 802.3 frame, whose length stands there.
    source: the MAC address of its sender, if it is known.
    destination: the MAC address that it was sent to; None: as the IP address says.
    end: where the network packet ends, at most; None: with the data.
    """

    skip: int
    ethertype: int
    source: bytes = SENDER
    destination: bytes | None = None
    end: int | None = None


Finder = Callable[[memoryview, str], Begin | None]


def _raw(data: memoryview, _: str) -> Begin | None:
    """LINKTYPE_RAW: the first four bits are the version of IP."""
    version = data[0] >> 4 if data else 0
    return Begin(0, IPV4) if version == 4 else Begin(0, IPV6) if version == 6 else None


def _ipv4(data: memoryview, _: str) -> Begin | None:
    return Begin(0, IPV4)


def _ipv6(data: memoryview, _: str) -> Begin | None:
    return Begin(0, IPV6)


# Address families in BSD loopback headers: IPv6 has another number on every system.
_FAMILIES = {2: IPV4, 10: IPV6, 24: IPV6, 28: IPV6, 30: IPV6}


def _loopback(family: int) -> Begin | None:
    ethertype = _FAMILIES.get(family)
    return None if ethertype is None else Begin(4, ethertype)


def _bsd_loopback(data: memoryview, _: str) -> Begin | None:
    """LINKTYPE_NULL: the family has the byte order of the capturing machine, which need not be
    that of the file."""
    if len(data) < 4:
        return None
    families = [int.from_bytes(data[:4], order) for order in ("little", "big")]
    return _loopback(min(families))  # all families are small numbers


def _openbsd_loopback(data: memoryview, _: str) -> Begin | None:
    """LINKTYPE_LOOP: the family is in network byte order."""
    return _loopback(int.from_bytes(data[:4], "big")) if len(data) >= 4 else None


# Devices (ARPHRD_*) whose cooked packets have no EtherType: CAN, 802.11 three times, netlink.
_NO_ETHERTYPE = {280, 801, 802, 803, 824}
_PACKET_BROADCAST, _PACKET_MULTICAST = 1, 2
_RAW_8023, _LLC = 0x0001, 0x0004  # ETH_P_802_3, ETH_P_802_2


def _cooked(
    skip: int, protocol: int, device: int, packet_type: int, address: memoryview
) -> Begin | None:
    if device in _NO_ETHERTYPE or (protocol < _TYPE_MIN and protocol not in (_RAW_8023, _LLC)):
        return None
    source = bytes(address) if len(address) == 6 else SENDER
    destination = RECEIVER
    if packet_type == _PACKET_BROADCAST:
        destination = BROADCAST
    return Begin(skip, protocol, source, None if packet_type == _PACKET_MULTICAST else destination)


def _cooked_v1(data: memoryview, _: str) -> Begin | None:
    """LINKTYPE_LINUX_SLL: packet type, device, length of the address, address, protocol."""
    if len(data) < 16:
        return None
    packet_type, device, length, protocol = struct.unpack_from("!HHH8xH", data)
    return _cooked(16, protocol, device, packet_type, data[6 : 6 + min(length, 8)])


def _cooked_v2(data: memoryview, _: str) -> Begin | None:
    """LINKTYPE_LINUX_SLL2: protocol, interface, device, packet type, length of the address,
    address."""
    if len(data) < 20:
        return None
    protocol, device, packet_type, length = struct.unpack_from("!H2x4xHBB", data)
    return _cooked(20, protocol, device, packet_type, data[12 : 12 + min(length, 8)])


_NFULA_HWADDR, _NFULA_PAYLOAD = 8, 9
_NETFILTER_FAMILIES = {2: IPV4, 10: IPV6}  # NFPROTO_IPV4, NFPROTO_IPV6


def _netfilter_log(data: memoryview, byte_order: str) -> Begin | None:
    """LINKTYPE_NFLOG: family, version, number of the group, then attributes, each with its length
    and type in the byte order of the file. One of them is the packet. An attribute is padded to a
    multiple of 4 bytes, which its length does not count."""
    ethertype = _NETFILTER_FAMILIES.get(data[0]) if len(data) >= 4 else None
    if ethertype is None or data[1] != 0:
        return None
    source = SENDER
    at = 4
    while at + 4 <= len(data):
        length, kind = struct.unpack_from(byte_order + "HH", data, at)
        if length < 4:
            return None
        if kind & 0x7FFF == _NFULA_PAYLOAD:
            return Begin(at + 4, ethertype, source, end=at + length)
        if kind & 0x7FFF == _NFULA_HWADDR and bytes(data[at + 4 : at + 6]) == b"\0\6":
            source = bytes(data[at + 8 : at + 14])
        at += length + 3 & ~3
    return None


_FINDERS: dict[int, Finder] = {
    0: _bsd_loopback,
    12: _raw,
    101: _raw,
    108: _openbsd_loopback,
    113: _cooked_v1,
    228: _ipv4,
    229: _ipv6,
    239: _netfilter_log,
    276: _cooked_v2,
}


def can_become_ethernet(link_type: int) -> bool:
    """Whether packets of this link type can get an Ethernet header."""
    return link_type in _FINDERS


def ethernet_frame(
    link_type: int, data: memoryview, original: int, byte_order: str
) -> tuple[bytes, int] | None:
    """A packet with a header of 14 bytes in place of what it has, and the length that it had on
    the wire with this header.

    original: the length of the packet in the capture on the wire, in bytes; at least `data` has.
    byte_order: of the file, "<" or ">".

    None when the packet is not one that Ethernet can carry, or is too short to tell.
    """
    finder = _FINDERS.get(link_type)
    begin = None if finder is None else finder(data, byte_order)
    if begin is None or len(begin.source) != 6:
        return None
    packet = data[begin.skip : begin.end]
    end = original if begin.end is None else min(begin.end, original)
    destination = begin.destination or _destination(begin.ethertype, packet)
    ethertype = begin.ethertype if begin.ethertype >= _TYPE_MIN else min(len(packet), _TYPE_MIN - 1)
    header = destination + begin.source + ethertype.to_bytes(2, "big")
    return header + packet, len(header) + end - begin.skip


def _destination(ethertype: int, packet: memoryview) -> bytes:
    """The MAC address for the destination of an IP packet."""
    if ethertype == IPV4 and len(packet) >= 20:
        if bytes(packet[16:20]) == b"\xff\xff\xff\xff":
            return BROADCAST
        if packet[16] >> 4 == 0xE:
            return b"\x01\x00\x5e" + bytes([packet[17] & 0x7F]) + bytes(packet[18:20])
    if ethertype == IPV6 and len(packet) >= 40 and packet[24] == 0xFF:
        return b"\x33\x33" + bytes(packet[36:40])
    return RECEIVER
