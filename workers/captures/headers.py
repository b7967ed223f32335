"""Packet headers: sizes and numbers of fields, MAC addresses, checksums."""

from __future__ import annotations

import re

Bytes = bytes | bytearray | memoryview

ETHERNET_BYTES = 14
VLAN_TAG_BYTES = 4
IPV4_BYTES = 20  # without options
IPV6_BYTES = 40  # without extension headers
TCP_BYTES = 20  # without options
UDP_BYTES = 8

# Sizes of frames without CRC (IEEE 802.3). A sender pads shorter frames to the minimum.
ETHERNET_MIN = 60
ETHERNET_MAX_UNTAGGED = 1514  # 1500 bytes of payload; a VLAN tag adds VLAN_TAG_BYTES

PROTOCOL_TCP = 6
PROTOCOL_UDP = 17

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4})")


def parse_mac(text: str) -> bytes:
    """The six bytes of "02:00:00:00:00:01" or "02-00-00-00-00-01". Raises ValueError."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address like 02:00:00:00:00:01")
    return bytes.fromhex(text.replace(text[2], ""))


def checksum(data: Bytes, start: int = 0) -> int:
    """The Internet checksum (RFC 1071) of `data`; an odd last byte is padded with zero.

    `start` is added first, for instance the sum of a pseudo header. The result is 0 for data
    that contains its own correct checksum.
    """
    raw = bytes(data)
    if len(raw) % 2:
        raw += b"\0"
    # 65536 is 1 modulo 65535, so the whole number has the same remainder as the sum of its
    # 16-bit words, and this is their one's complement sum. It is 0 only when all words are 0.
    total = int.from_bytes(raw, "big") + start
    return 0xFFFF - (((total - 1) % 0xFFFF + 1) if total else 0)
