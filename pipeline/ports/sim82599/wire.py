"""The frames that arrive on a simulated wire: a table of frames and an order.

The device model sends frame `order[i % len(order)]` for i = 0, 1, ..., until `total` frames are
sent. Each frame begins on a cache line, so that sending one is one copy.

A replay sends the frames of a capture in their order (replay.py). Frames below 60 bytes are padded
with zeros, as by a sending card. Frames above the maximum are sent too: the receiving card drops
and counts them.

Flows are generated: distinct pairs of addresses and ports from the ranges that are reserved for
benchmarks (RFC 2544: 198.18.0.0/15; RFC 5180: 2001:2::/48). They are random, so that
receive-side scaling spreads them, but always the same for the same configuration. Checksums are
correct.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ringline.pipeline.configuration.config import FlowsConfig
from ringline.workers.captures import headers

LINE_BYTES = 64  # bytes of a cache line

# Locally administered addresses. By default, flows go to the address of the card.
CARD_MAC = bytes.fromhex("020000000001")
SENDER_MAC = bytes.fromhex("020000000002")

_SEED = 82599
# Approximate maximum length of `order`; it repeats after that. The proportions stay the same.
_ORDER_MAX = 1 << 18


@dataclass(frozen=True)
class Timing:
    """When the frames of a table arrive, and their time stamps; by index of `order`.

    Attributes:
        stamps: nanoseconds since 1970, array('q').
        due: nanoseconds from the begin of the wire, never decreasing, array('Q').
        pace: how many times faster they arrive.
        period: nanoseconds from one repetition to the next.
    """

    stamps: array[int]
    due: array[int]
    pace: float
    period: int = 0


@dataclass(frozen=True)
class FrameTable:
    """Frames and the order in which they are sent.

    Attributes:
        data: all frames, each at a multiple of LINE_BYTES.
        offsets: byte offset of each frame in `data`, array('Q').
        lengths: bytes of each frame, 60 or more, without CRC, array('I').
        order: indices of frames in sending order; repeated from the first, array('I').
        total: number of frames to send; 0: without end.
        padded: number of frames in the table that were shorter than 60 bytes.
        oversize: number of frames in the table that a card with jumbo frames off drops: over 1514
            bytes, 1518 with a VLAN tag.
        remark: a sentence about the source for the user, or None.
        timing: when the frames arrive; None: by the rate of the wire.
        more: gives the frames that come after these, and None at the end. Without it, these are
            all.
    """

    data: bytes
    offsets: array[int]
    lengths: array[int]
    order: array[int]
    total: int
    padded: int
    oversize: int
    remark: str | None = None
    timing: Timing | None = None
    more: Callable[[], FrameTable | None] | None = None

    def frame(self, index: int) -> memoryview:
        """Frame `index` of the table, without copying it."""
        start = self.offsets[index]
        return memoryview(self.data)[start : start + self.lengths[index]]

    def sent(self, count: int | None = None) -> Iterator[memoryview]:
        """The first `count` frames in sending order; all `total` frames when `count` is None.

        The iterator has no end when both mean that.
        """
        limit = self.total if count is None else count
        number = 0
        while not limit or number < limit:
            yield self.frame(self.order[number % len(self.order)])
            number += 1


def from_flows(flows: FlowsConfig, destination: bytes, source: bytes = SENDER_MAC) -> FrameTable:
    """Frames of `flows.count` flows, each in all sizes of `flows.sizes`.

    A size that is too small for the headers (IPv6 with UDP needs 62 bytes, with TCP 74) becomes
    the smallest that fits.
    """
    chance = random.Random(_SEED)
    pattern = [size for size, weight in flows.sizes for _ in range(weight)]
    chance.shuffle(pattern)
    makers = [_Flow(chance, number, flows, destination + source) for number in range(flows.count)]
    # Each pass sends every flow once. The sizes shift by one from pass to pass, so that after all
    # passes every flow was sent in every size, as often as the weight of the size.
    passes = min(len(pattern), max(1, _ORDER_MAX // flows.count))
    indices: dict[tuple[int, int], int] = {}
    order = array("I")
    for shift in range(passes):
        for number in range(flows.count):
            pair = number, pattern[(number + shift) % len(pattern)]
            order.append(indices.setdefault(pair, len(indices)))
    return table_of((makers[number].frame(size) for number, size in indices), order, flows.packets)


def table_of(
    frames: Iterable[bytes | memoryview],
    order: array[int],
    total: int,
    remark: str | None = None,
    timing: Timing | None = None,
    more: Callable[[], FrameTable | None] | None = None,
) -> FrameTable:
    """The table of `frames`, in which `total` are sent in `order`; short frames are padded."""
    pieces: list[bytes | memoryview] = []
    offsets, lengths = array("Q"), array("I")
    at = padded = oversize = 0
    for frame in frames:
        length = len(frame)
        if length < headers.ETHERNET_MIN:
            padded += 1
            length = headers.ETHERNET_MIN
        elif length > headers.ETHERNET_MAX_UNTAGGED:
            tagged = frame[12:14] == b"\x81\x00"
            oversize += length > headers.ETHERNET_MAX_UNTAGGED + headers.VLAN_TAG_BYTES * tagged
        room = -length % LINE_BYTES + length
        pieces.append(frame)
        pieces.append(bytes(room - len(frame)))
        offsets.append(at)
        lengths.append(length)
        at += room
    return FrameTable(
        b"".join(pieces), offsets, lengths, order, total, padded, oversize, remark, timing, more
    )


_PAYLOAD = bytes(range(32, 127)) * 200


class _Flow:
    """One flow; `frame` makes its frame of a given size.

    Sums for checksums are plain integers: 65536 is 1 modulo 65535, so 32-bit and 128-bit fields
    are added whole, and only the last step folds the sum.
    """

    def __init__(
        self, chance: random.Random, number: int, flows: FlowsConfig, addresses: bytes
    ) -> None:
        # When both are mixed, flows alternate: IPv4 UDP, IPv6 UDP, IPv4 TCP, IPv6 TCP.
        self.ipv6 = flows.ip == "ipv6" or (flows.ip == "mixed" and number % 2 == 1)
        tcp = flows.protocol == "tcp" or (flows.protocol == "mixed" and number // 2 % 2 == 1)
        self.protocol = headers.PROTOCOL_TCP if tcp else headers.PROTOCOL_UDP
        # The flow's number is in the source address and, above 65535, in the source port: all
        # flows differ.
        self.source = number & 0xFFFF
        self.destination = chance.getrandbits(16)
        source_port = 0xC000 | (number >> 16 & 0xF) << 10 | chance.getrandbits(10)
        self.ports = source_port << 16 | 1024 + chance.getrandbits(15)
        if self.ipv6:
            prefix = 0x2001_0002_0000 << 80
            self.source |= prefix | chance.getrandbits(32) << 16
            self.destination |= prefix | 1 << 64
        else:
            self.source |= 198 << 24 | 18 << 16
            self.destination |= 198 << 24 | 19 << 16
        self.ethernet = addresses + (b"\x86\xdd" if self.ipv6 else b"\x08\x00")

    def frame(self, size: int) -> bytes:
        """The frame of `size` bytes without CRC, or more when the headers need more."""
        tcp = self.protocol == headers.PROTOCOL_TCP
        network_bytes = headers.IPV6_BYTES if self.ipv6 else headers.IPV4_BYTES
        transport_bytes = headers.TCP_BYTES if tcp else headers.UDP_BYTES
        fixed = headers.ETHERNET_BYTES + network_bytes + transport_bytes
        payload = _PAYLOAD[: max(size - fixed, 0)]
        length = transport_bytes + len(payload)
        # The pseudo header and the ports; then the fields that differ between TCP and UDP.
        total = self.source + self.destination + self.protocol + length + self.ports
        if tcp:
            fields = 1 << 64 | 5 << 28 | 0x10 << 16 | 0xFFFF  # sequence 1, ACK, window 65535
            total += fields
        else:
            total += length
        summed = headers.checksum(payload, total)
        if tcp:
            transport = struct.pack("!I12sHH", self.ports, fields.to_bytes(12, "big"), summed, 0)
        else:
            # 0 means that there is no checksum (RFC 768).
            transport = struct.pack("!IHH", self.ports, length, summed or 0xFFFF)
        return b"".join((self.ethernet, self._network(length), transport, payload))

    def _network(self, length: int) -> bytes:
        if self.ipv6:
            start = struct.pack("!IHBB", 6 << 28, length, self.protocol, 64)
            return start + self.source.to_bytes(16, "big") + self.destination.to_bytes(16, "big")
        total = length + headers.IPV4_BYTES
        # Version and header length, total length, identification 0, don't fragment, TTL 64.
        words = 0x4500 + total + 0x4000 + (64 << 8 | self.protocol)
        summed = headers.checksum(b"", words + self.source + self.destination)
        return struct.pack(
            "!HHHHBBHII",
            *(0x4500, total, 0, 0x4000, 64, self.protocol, summed, self.source, self.destination),
        )
