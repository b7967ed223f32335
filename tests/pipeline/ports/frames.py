"""Frames for tests, with checksums computed independently of the code under test."""

from __future__ import annotations

import ipaddress
import struct

CARD = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("0200000000aa")
SENDER = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
MULTICAST = bytes.fromhex("01005e000001")


def summed(data: bytes) -> int:
    """The Internet checksum of `data`."""
    total = sum(word for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ethernet(
    payload: bytes, kind: int = 0x88B5, destination: bytes = CARD, vlan: int | None = None
) -> bytes:
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    frame = destination + SENDER + tag + struct.pack("!H", kind) + payload
    return frame.ljust(60, b"\0")


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!HH", protocol, length)
    return source + destination + struct.pack("!II", length, protocol)


def segment(
    source: bytes, destination: bytes, protocol: int, ports: tuple[int, int], payload: bytes
) -> bytes:
    """A UDP (17) or TCP (6) segment with a correct checksum."""
    if protocol == 17:
        header = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
        at = 6
    else:
        header = struct.pack("!HHIIHHHH", *ports, 1, 0, 5 << 12 | 0x10, 65535, 0, 0)
        at = 16
    whole = header + payload
    checksum = summed(pseudo(source, destination, protocol, len(whole)) + whole)
    return whole[:at] + struct.pack("!H", checksum or 0xFFFF) + whole[at + 2 :]


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    body: bytes,
    *,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    start = struct.pack(
        "!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), 7, fragment, 64,
        protocol, 0,
    )  # fmt: skip
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    checksum = struct.pack("!H", summed(start + addresses + options))
    return start[:10] + checksum + addresses + options + body


def ipv6(source: str, destination: str, following: int, body: bytes) -> bytes:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + addresses + body


def packet(
    source: str,
    destination: str,
    protocol: int,
    ports: tuple[int, int] | None = None,
    payload: bytes = b"payload",
    vlan: int | None = None,
) -> bytes:
    """An Ethernet frame with IPv4 or IPv6 and, with `ports`, UDP or TCP."""
    addresses = [ipaddress.ip_address(text) for text in (source, destination)]
    body = payload
    if ports is not None:
        body = segment(addresses[0].packed, addresses[1].packed, protocol, ports, payload)
    if addresses[0].version == 4:
        return ethernet(ipv4(source, destination, protocol, body), 0x0800, vlan=vlan)
    return ethernet(ipv6(source, destination, protocol, body), 0x86DD, vlan=vlan)
