"""The key of a flow: the 5-tuple of an IPv4 or IPv6 packet, of a fragment without its ports.

A key has five words: the two halves of the source address, those of the target address (of IPv4 the
low half alone), and ports, protocol and IP version together.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from ringline.workers.api import field

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE_HIGH, SOURCE_LOW, TARGET_HIGH, TARGET_LOW, REST = range(5)

TCP, UDP, SCTP = 6, 17, 132
FRAGMENT = 44
PROTOCOLS = {1: "icmp", TCP: "tcp", UDP: "udp", 47: "gre", 50: "esp", 58: "icmp6", SCTP: "sctp"}

# An odd number with no pattern in its bits: 2^64 / the golden ratio.
FACTOR = np.uint64(0x9E3779B97F4A7C15)


@njit
def flow_key(frame: Any) -> Any:
    """The key of the packet's flow, five words; the last one is 0 when the packet is not IP."""
    source_high, source_low, target_high, target_low, rest, _ = flow_parts(frame)
    return source_high, source_low, target_high, target_low, rest


@njit
def flow_parts(frame: Any) -> Any:
    """The key of the packet's flow, and where the header behind that of IP begins in the frame; 0
    in a fragment, which has none."""
    source_high, source_low, target_high, target_low, rest, at, _, _ = flow_places(frame)
    return source_high, source_low, target_high, target_low, rest, at


@njit
def flow_places(frame: Any) -> Any:
    """As `flow_parts`; then where the header of IP begins, and the octets of the packet that it
    says, or 0."""
    at, kind = 14, 0
    if len(frame) >= 14:
        kind = field(frame, 12, 2)
    while (kind == 0x8100 or kind == 0x88A8) and len(frame) >= at + 4:  # noqa: PLR1714  # numba
        kind = field(frame, at + 2, 2)
        at += 4
    whole = True  # not a fragment: the ports follow
    if kind == 0x0800 and len(frame) >= at + 20:
        protocol = field(frame, at + 9, 1)
        whole = field(frame, at + 6, 2) & 0x3FFF == 0
        source_high, source_low = 0, field(frame, at + 12, 4)
        target_high, target_low = 0, field(frame, at + 16, 4)
        version, ports_at = 4, at + 4 * (field(frame, at, 1) & 15)
        octets = field(frame, at + 2, 2)
    elif kind == 0x86DD and len(frame) >= at + 40:
        protocol = field(frame, at + 6, 1)
        source_high, source_low = field(frame, at + 8, 8), field(frame, at + 16, 8)
        target_high, target_low = field(frame, at + 24, 8), field(frame, at + 32, 8)
        version, ports_at = 6, at + 40
        octets = field(frame, at + 4, 2)
        octets += 40 if octets else 0
        # After the header of a fragment there may be any part of the payload.
        while whole and extends(protocol) and len(frame) >= ports_at + 8:
            if protocol == FRAGMENT:
                whole = field(frame, ports_at + 2, 2) & 0xFFF9 == 0
            size = 8 if protocol == FRAGMENT else 8 * (field(frame, ports_at + 1, 1) + 1)
            protocol = field(frame, ports_at, 1)
            ports_at += size
    else:
        return 0, 0, 0, 0, 0, 0, 0, 0
    ports = 0
    has_ports = protocol == TCP or protocol == UDP or protocol == SCTP  # noqa: PLR1714  # numba
    if has_ports and whole and len(frame) >= ports_at + 4:
        ports = field(frame, ports_at, 4)
    rest = ports << 16 | protocol << 8 | version
    after = ports_at if whole else 0
    return source_high, source_low, target_high, target_low, rest, after, at, octets


@njit
def octets_of(room: Any, octets: Any) -> Any:
    """The octets of an IP packet in `room` bytes of a frame: those that its header says. If that is
    0 (a card will cut the packet) or too much, it is the room."""
    return octets if 0 < octets <= room else room


@njit
def extends(protocol: Any) -> Any:
    """Whether `protocol` is an extension header of IPv6: hop-by-hop options, routing,
    fragment, destination options, mobility."""
    return (
        protocol == 0  # noqa: PLR1714  # numba
        or protocol == 43
        or protocol == FRAGMENT
        or protocol == 60
        or protocol == 135
    )


@njit
def mix(hashed: Any, word: Any) -> Any:
    """One step of the hash.

    The product is unsigned: LLVM may assume that a product of signed numbers does not overflow.
    """
    product = np.int64(np.uint64(hashed ^ word) * FACTOR)
    return product ^ (product >> 29)


@njit
def hash_of(key: Any) -> Any:
    """The hash of a flow's key."""
    return mix(mix(mix(mix(mix(0, key[0]), key[1]), key[2]), key[3]), key[4])


def mix_columns(hashed: NDArray[np.int64], word: NDArray[np.int64]) -> NDArray[np.int64]:
    """`mix` for whole columns."""
    product = ((hashed ^ word).view(np.uint64) * FACTOR).view(np.int64)
    return product ^ (product >> 29)


def hash_of_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """`hash_of` for every row, which begins with a key; 0 for a row without one."""
    hashed = np.zeros(len(rows), np.int64)
    for word in range(5):
        hashed = mix_columns(hashed, rows[:, word])
    return np.where(rows[:, REST] == 0, 0, hashed)


def label(row: Any) -> str:
    """A flow as text, from the words of its key: `10.0.0.1:80 > 10.0.0.2:1234 tcp`."""
    rest = int(row[REST]) & 0xFFFF_FFFF_FFFF_FFFF
    version, protocol, ports = rest & 0xFF, rest >> 8 & 0xFF, rest >> 16
    words = [int(row[word]) & 0xFFFF_FFFF_FFFF_FFFF for word in range(4)]
    ends = []
    for high, low, port in ((*words[:2], ports >> 16), (*words[2:], ports & 0xFFFF)):
        if version == 4:
            address = socket.inet_ntop(socket.AF_INET, low.to_bytes(4, "big"))
        else:
            address = socket.inet_ntop(socket.AF_INET6, (high << 64 | low).to_bytes(16, "big"))
            address = f"[{address}]" if ports else address
        ends.append(f"{address}:{port}" if ports else address)
    return f"{ends[0]} > {ends[1]} {PROTOCOLS.get(protocol, protocol)}"
