"""Frames that break the rules of IPv4, IPv6, ARP or neighbour discovery, and what a router does.

`frames` are for a router with the addresses of tests/workers/test_router.py at its port wan.
`forwarded` says what leaves at the port lan, from the RFCs and without the code under test.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .headers.packets import summed

WAN, LAN = bytes.fromhex("0200c0000201"), bytes.fromhex("0200c6336401")
HOST, TARGET = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
IPV4, ARP, IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
SOURCE4, TARGET4, OWN4 = bytes([192, 0, 2, 9]), bytes([198, 51, 100, 9]), bytes([192, 0, 2, 1])
SOURCE6 = bytes.fromhex("20010db8000100000000000000000009")
TARGET6 = bytes.fromhex("20010db8000200000000000000000009")
OWN6 = bytes.fromhex("20010db8000100000000000000000001")
GROUP6 = bytes.fromhex("ff0200000000000000000001ff000001")
UDP, ICMPV6 = 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NOTHING, DESTINATION = 0, 43, 44, 51, 59, 60


def frames(seed: int, count: int) -> Iterator[bytes]:
    """The same frames for the same seed. About half of the IP packets must be forwarded."""
    chance = random.Random(seed)
    kinds = [_ipv4] * 4 + [_ipv6] * 4 + [_arp, _discovery]
    for number in range(count):
        made = chance.choice(kinds)(chance, number.to_bytes(4, "big"))
        if chance.random() < 0.2:
            made = made[: chance.randrange(14, len(made) + 1)]
        if chance.random() < 0.1:
            at = chance.choice([*range(12, 22), *range(54, 70)])  # no byte of an address
            made = (
                made[:at]
                + bytes([chance.randrange(256)])[: max(len(made) - at, 0)]
                + made[at + 1 :]
            )
        yield made if chance.random() < 0.3 else made.ljust(60, b"\0")


def _datagram(number: bytes, chance: random.Random) -> bytes:
    content = number + bytes(chance.choice([0, 1, 14, 200, 1000]))
    return b"\x10\0\x20\0" + (8 + len(content)).to_bytes(2, "big") + b"\0\0" + content


def _ipv4(chance: random.Random, number: bytes) -> bytes:
    words = chance.choice([5] * 12 + [0, 1, 4, 6, 8, 15])
    rest = bytes([1]) * max(4 * words - 20, 0) + _datagram(number, chance)
    length = 20 + len(rest) + chance.choice([0] * 8 + [-1, 1, -9, 100, -10_000, 65_535])
    fragment = chance.choice([0] * 4 + [0x4000, 0x2000, 0x2001, 0x00B9, 0x1FFF, 0x8000])
    head = bytes([chance.choice([4] * 12 + [0, 5, 6, 15]) << 4 | words, 0])
    head += min(max(length, 0), 65_535).to_bytes(2, "big") + number[2:]
    head += fragment.to_bytes(2, "big")
    head += bytes([chance.choice([0, 1, 2, 64, 255, 9]), chance.choice([6, UDP, UDP, 1, 253])])
    rest = SOURCE4 + chance.choice([TARGET4] * 5 + [OWN4]) + rest
    whole = (head + b"\0\0" + rest)[: max(4 * words, 20)]
    checksum = 0xFFFF ^ summed(whole)
    if chance.random() < 0.1:
        checksum ^= 1 << chance.randrange(16)
    return WAN + HOST + IPV4 + head + checksum.to_bytes(2, "big") + rest


def _ipv6(chance: random.Random, number: bytes) -> bytes:
    body, following = _datagram(number, chance), UDP
    for _ in range(chance.choice([0, 0, 0, 1, 2, 3, 9])):
        kind = chance.choice([ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, NOTHING])
        units = chance.choice([0, 0, 1, 2, 255]) if kind != FRAGMENT else 0
        body = bytes([following, units]) + _padding(kind, units, chance) + body
        following = kind
    length = len(body) + chance.choice([0] * 8 + [-1, 1, -9, 100, -10_000, 65_535])
    head = bytes([chance.choice([6] * 12 + [0, 4, 5, 15]) << 4, 0, 0, 0])
    head += min(max(length, 0), 65_535).to_bytes(2, "big")
    head += bytes([following, chance.choice([0, 1, 2, 64, 255, 9])])
    return WAN + HOST + IPV6 + head + SOURCE6 + chance.choice([TARGET6] * 5 + [OWN6]) + body


def _padding(kind: int, units: int, chance: random.Random) -> bytes:
    """What follows the first two bytes of an extension header; it may be shorter than it says."""
    if kind == FRAGMENT:
        return chance.choice([0, 1, 8, 0xFFF9]).to_bytes(2, "big") + bytes(4)
    size = min(4 * (units + 2) if kind == AUTHENTICATION else 8 * (units + 1), 24) - 2
    return bytes([1, size - 2]) + bytes(size - 2) if kind == DESTINATION else bytes(size)


def _arp(chance: random.Random, number: bytes) -> bytes:
    head = [0, chance.choice([1, 1, 1, 6]), 8, chance.choice([0, 0, 0, 6])]
    head += [chance.choice([6, 6, 6, 0, 255]), chance.choice([4, 4, 4, 16]), 0]
    operation = chance.choice([0, 1, 1, 1, 2, 3, 255])
    body = bytes([*head, operation]) + HOST + SOURCE4 + bytes(6)
    return chance.choice([WAN, b"\xff" * 6]) + HOST + ARP + body + OWN4 + number


def _discovery(chance: random.Random, number: bytes) -> bytes:
    message = bytes([chance.choice([133, 134, 135, 135, 135, 136, 137]), 0]) + b"\0\0" + bytes(4)
    message += OWN6
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        message += bytes([chance.choice([1, 1, 2, 3, 200]), chance.choice([0, 1, 1, 2, 255])])
        message += HOST[: chance.choice([0, 5, 6, 6, 6])]
    pseudo = SOURCE6 + GROUP6 + len(message).to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6])
    checksum = 0xFFFF ^ summed(pseudo + message)
    message = message[:2] + checksum.to_bytes(2, "big") + message[4:]
    head = b"\x60\0\0\0" + len(message).to_bytes(2, "big")
    head += bytes([ICMPV6, chance.choice([255, 255, 255, 64, 0])])
    return b"\x33\x33" + GROUP6[12:] + HOST + IPV6 + head + SOURCE6 + GROUP6 + message


def forwarded(frame: bytes) -> bytes | None:
    """The frame that leaves at the port lan: with IPv4 for TARGET, with IPv6 for HOST. None when
    none does."""
    packet, target = frame[14:], TARGET
    if frame[:6] != WAN:
        return None
    if frame[12:14] == IPV4:
        packet = _forwarded4(packet)
    elif frame[12:14] == IPV6:
        packet, target = _forwarded6(packet), HOST
    else:
        return None
    return target + LAN + frame[12:14] + packet if packet else None


def _forwarded4(packet: bytes) -> bytes:
    """RFC 1812, section 5.2.2 and 5.3.1."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return b""
    size, length = 4 * (packet[0] & 15), int.from_bytes(packet[2:4], "big")
    if size < 20 or not size <= length <= len(packet):
        return b""
    if summed(packet[:size]) != 0xFFFF or packet[8] < 2:
        return b""
    if (packet[12:16], packet[16:20]) != (SOURCE4, TARGET4):
        return b""
    head = bytearray(packet[:size])
    head[8] -= 1
    head[10:12] = b"\0\0"
    head[10:12] = (0xFFFF ^ summed(bytes(head))).to_bytes(2, "big")
    return bytes(head) + packet[size:length]


def _forwarded6(packet: bytes) -> bytes:
    """RFC 8200, section 3: a router looks at the fixed header only."""
    if len(packet) < 40 or packet[0] >> 4 != 6 or packet[7] < 2:
        return b""
    end = 40 + int.from_bytes(packet[4:6], "big")
    if end > len(packet) or (packet[8:24], packet[24:40]) != (SOURCE6, TARGET6):
        return b""
    return packet[:7] + bytes([packet[7] - 1]) + packet[8:end]
