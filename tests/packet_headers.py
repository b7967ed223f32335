"""Parse frames independently of the code under test.

Pure functions over bytes. Unknown data is reported as unknown (None, no ports); no input
raises. Offsets count from the first byte of the frame, which is the destination address.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ringline.workers.captures.headers import (
    ETHERNET_BYTES,
    IPV4_BYTES,
    IPV6_BYTES,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    VLAN_TAG_BYTES,
    Bytes,
)

TYPE_IPV4 = 0x0800
TYPE_VLAN = 0x8100  # IEEE 802.1Q; the only tag that the 82599 knows by default
TYPE_IPV6 = 0x86DD

_PROTOCOL_IPV6_FRAGMENT = 44
# Extension headers whose length field counts units of 8 bytes after the first 8: hop-by-hop
# options, routing, destination options, mobility.
_IPV6_EXTENSIONS = frozenset((0, 43, 60, 135))


def pseudo_header_sum(source: Bytes, destination: Bytes, protocol: int, length: int) -> int:
    """`start` for the checksum of a TCP or UDP segment of `length` bytes (RFC 9293, RFC 8200)."""
    addresses = int.from_bytes(source, "big") + int.from_bytes(destination, "big")
    return addresses + protocol + (length >> 16) + (length & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Layers:
    """The headers of a frame. Addresses and ports are bytes as in the frame; empty: none."""

    vlan: int | None  # tag control information of the 802.1Q tag
    ethertype: int  # after the tag; a length below 1536 for IEEE 802.3 frames
    network: int  # offset of the network header
    version: int | None  # 4 or 6 when it is IP and its header is whole
    source: bytes
    destination: bytes
    protocol: int | None  # of the transport header; None when it is not in the frame
    transport: int  # offset of the transport header; 0 when `protocol` is None
    fragment: bool  # part of a fragmented packet, the first one too
    ports: bytes  # source and destination port of TCP and UDP, 4 bytes; never of fragments


def parse(frame: Bytes) -> Layers | None:
    """Parse Ethernet, one VLAN tag, IP and the ports; None for a frame below 14 bytes."""
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
    """The bytes of a frame that RSS of the 82599 hashes. Frames with the same bytes take the same
    queue, so the pipeline must keep their order.

    Addresses and ports for TCP and UDP; addresses alone for other IP packets, for fragments, and
    for IPv6 with extension headers; empty for other frames, which go to queue 0.
    """
    layers = parse(frame)
    if layers is None or layers.version is None:
        return b""
    addresses = layers.source + layers.destination
    if layers.version == 6 and layers.transport != layers.network + IPV6_BYTES:
        return addresses
    return addresses + layers.ports
