"""Packet headers: where their fields are, and the few computations on them.

Pure functions over bytes, for wires that make frames, for plugins and for tests.
What is not understood is said to be so (None, no ports), never guessed; no input
raises. Offsets are of the frame's first byte, which is the destination address.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

Bytes = bytes | bytearray | memoryview

ETHERNET_BYTES = 14
VLAN_TAG_BYTES = 4
IPV4_BYTES = 20  # without options
IPV6_BYTES = 40  # without extension headers
TCP_BYTES = 20  # without options
UDP_BYTES = 8

FRAME_MIN = 60  # the shortest frame on a wire, without its CRC (IEEE 802.3: 64 with it)
FRAME_MAX = 1514  # the longest without a VLAN tag: 1500 of payload
CRC_BYTES = 4

TYPE_IPV4 = 0x0800
TYPE_ARP = 0x0806
TYPE_VLAN = 0x8100  # IEEE 802.1Q; the only tag that the 82599 knows unless told otherwise
TYPE_IPV6 = 0x86DD

PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ICMPV6 = 58
_PROTOCOL_IPV6_FRAGMENT = 44
# Extension headers that say their length in units of 8 bytes, less the first: hop-by-hop
# options, routing, destination options, mobility.
_IPV6_EXTENSIONS = frozenset((0, 43, 60, 135))

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4})")


def parse_mac(text: str) -> bytes:
    """The six bytes of "02:00:00:00:00:01" or "02-00-00-00-00-01". Raises ValueError."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address like 02:00:00:00:00:01")
    return bytes.fromhex(text.replace(text[2], ""))


def format_mac(address: Bytes) -> str:
    """Six bytes as "02:00:00:00:00:01"."""
    return bytes(address).hex(":")


def checksum(data: Bytes, start: int = 0) -> int:
    """The Internet checksum (RFC 1071) of `data`, an odd last byte padded with zero.

    `start` is a sum that comes first, a pseudo header's for example. Over data that holds its
    own right checksum the result is 0.
    """
    raw = bytes(data)
    if len(raw) % 2:
        raw += b"\0"
    # 65536 is 1 modulo 65535, so the whole number leaves the same remainder as the sum of its
    # 16-bit words, and that is the one's complement sum: 0 stays 0 only when all is 0.
    total = int.from_bytes(raw, "big") + start
    return 0xFFFF - (((total - 1) % 0xFFFF + 1) if total else 0)


def pseudo_header_sum(source: Bytes, destination: Bytes, protocol: int, length: int) -> int:
    """`start` for the checksum of a TCP or UDP segment of `length` bytes (RFC 9293, RFC 8200)."""
    addresses = int.from_bytes(source, "big") + int.from_bytes(destination, "big")
    return addresses + protocol + (length >> 16) + (length & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Layers:
    """What a frame holds. Addresses and ports are bytes as in the frame; empty: none."""

    vlan: int | None  # tag control information of the 802.1Q tag
    ethertype: int  # after the tag; a length below 1536 for IEEE 802.3 frames
    network: int  # offset of the network header
    version: int | None  # 4 or 6 when it is IP and its header is whole
    source: bytes
    destination: bytes
    protocol: int | None  # of the transport header; None when there is none to be seen
    transport: int  # offset of the transport header; 0 when `protocol` is None
    fragment: bool  # part of a fragmented packet, the first one too
    ports: bytes  # source and destination port of TCP and UDP, 4 bytes; never of fragments


def parse(frame: Bytes) -> Layers | None:
    """Look through Ethernet, one VLAN tag, IP and the ports; None below 14 bytes."""
    size = len(frame)
    if size < ETHERNET_BYTES:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    network, vlan = ETHERNET_BYTES, None
    if ethertype == TYPE_VLAN and size >= ETHERNET_BYTES + VLAN_TAG_BYTES:
        vlan, ethertype = struct.unpack_from("!HH", frame, 14)
        network += VLAN_TAG_BYTES
    if ethertype == TYPE_IPV4 and size >= network + IPV4_BYTES and frame[network] >> 4 == 4:
        header = 4 * (frame[network] & 15)
        if header >= IPV4_BYTES and size >= network + header:
            return _ipv4(frame, vlan, network, network + header)
    if ethertype == TYPE_IPV6 and size >= network + IPV6_BYTES and frame[network] >> 4 == 6:
        return _ipv6(frame, vlan, network)
    return Layers(vlan, ethertype, network, None, b"", b"", None, 0, False, b"")


def _ports(frame: Bytes, protocol: int, transport: int) -> bytes:
    if protocol in (PROTOCOL_TCP, PROTOCOL_UDP) and len(frame) >= transport + 4:
        return bytes(frame[transport : transport + 4])
    return b""


def _ipv4(frame: Bytes, vlan: int | None, network: int, transport: int) -> Layers:
    (fragment,) = struct.unpack_from("!H", frame, network + 6)
    fragmented = bool(fragment & 0x3FFF)  # more fragments, or not the first
    protocol = frame[network + 9]
    source = bytes(frame[network + 12 : network + 16])
    destination = bytes(frame[network + 16 : network + 20])
    ports = b"" if fragmented else _ports(frame, protocol, transport)
    return Layers(
        vlan, TYPE_IPV4, network, 4, source, destination, protocol, transport, fragmented, ports
    )


def _ipv6(frame: Bytes, vlan: int | None, network: int) -> Layers:
    source = bytes(frame[network + 8 : network + 24])
    destination = bytes(frame[network + 24 : network + 40])
    following, transport = frame[network + 6], network + IPV6_BYTES
    protocol: int | None = following
    fragmented = False
    while protocol in _IPV6_EXTENSIONS or protocol == _PROTOCOL_IPV6_FRAGMENT:
        if len(frame) < transport + 8:
            protocol, transport = None, 0
            break
        following = frame[transport]
        if protocol == _PROTOCOL_IPV6_FRAGMENT:
            # An "atomic" fragment, first and last in one (RFC 6946), is not fragmented.
            (offset_and_more,) = struct.unpack_from("!H", frame, transport + 2)
            fragmented = fragmented or bool(offset_and_more & 0xFFF9)
            transport += 8
        else:
            transport += 8 * (frame[transport + 1] + 1)
        protocol = following
    ports = b"" if fragmented or protocol is None else _ports(frame, protocol, transport)
    return Layers(
        vlan, TYPE_IPV6, network, 6, source, destination, protocol, transport, fragmented, ports
    )


def rss_input(frame: Bytes) -> bytes:
    """What receive-side scaling of the 82599 hashes of a frame: frames with the same take the
    same queue, so their order must survive the pipeline.

    Addresses and ports of TCP and UDP; addresses alone of other IP packets and of fragments,
    and of IPv6 with extension headers; empty for all else, which goes to queue 0.
    """
    layers = parse(frame)
    if layers is None or layers.version is None:
        return b""
    addresses = layers.source + layers.destination
    if layers.version == 6 and layers.transport != layers.network + IPV6_BYTES:
        return addresses
    return addresses + layers.ports
