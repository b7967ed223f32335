"""What the other end of a simulated cable sends: a table of frames and an order.

The device model reads it frame by frame: `table[order[i % len(order)]]`, until
`total` frames have gone. Frames are laid out once, each at the start of a cache
line, so that sending one is one copy.

A replay is the capture's frames in their order. Those below 60 bytes are padded
with zeros, as a sending card would have done; those above the maximum stay in,
because dropping and counting them is what the receiving card does.

Flows are made here: distinct pairs of addresses and ports from the ranges that
are set aside for benchmarks (RFC 2544: 198.18.0.0/15; RFC 5180: 2001:2::/48),
random, so that receive-side scaling spreads them as it would any others; always
the same ones for the same configuration. Checksums are right.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringline.pipeline.configuration.config import FlowsConfig, WireConfig
from ringline.workers.captures import headers
from ringline.workers.captures.captures import CaptureError, read_capture

LINE_BYTES = 64  # of the processor's cache

# Locally administered addresses; the card's own is the default destination of flows.
CARD_MAC = bytes.fromhex("020000000001")
SENDER_MAC = bytes.fromhex("020000000002")

_SEED = 82599
# The order repeats after at most about so many frames; what it holds does not change by it.
_ORDER_MAX = 1 << 18


@dataclass(frozen=True)
class FrameTable:
    """Frames and the order in which they are sent.

    Attributes:
        data: all frames, each at a multiple of LINE_BYTES.
        offsets: of each frame in `data`, array('Q').
        lengths: bytes of each frame, 60 or more, without CRC, array('I').
        order: indices of frames as they are sent, then again from the first, array('I').
        total: how many frames are sent; 0: without end.
        padded: frames of the table that were shorter than 60 bytes.
        oversize: frames of the table that a card with jumbo frames off refuses: over 1514 bytes,
            1518 with a VLAN tag.
        remark: a sentence about the source that the user should see, or None.
    """

    data: bytes
    offsets: array[int]
    lengths: array[int]
    order: array[int]
    total: int
    padded: int
    oversize: int
    remark: str | None = None

    def frame(self, index: int) -> memoryview:
        """Frame `index` of the table."""
        start = self.offsets[index]
        return memoryview(self.data)[start : start + self.lengths[index]]

    def sent(self, count: int | None = None) -> Iterator[memoryview]:
        """The first `count` frames in the order of sending; None: all `total` of them.

        Without end when `total` and `count` say so.
        """
        limit = self.total if count is None else count
        number = 0
        while not limit or number < limit:
            yield self.frame(self.order[number % len(self.order)])
            number += 1


def frame_table(wire: WireConfig, destination: bytes = CARD_MAC) -> FrameTable | None:
    """The frames of `wire`; None when nothing arrives on it. Flows go to address `destination`.

    Raises CaptureError when the capture to replay cannot be.
    """
    if wire.flows is not None:
        return from_flows(wire.flows, destination)
    if wire.replay is not None:
        return from_replay(wire.replay, wire.repeat)
    return None


def from_replay(path: str, repeat: int = 1) -> FrameTable:
    """The frames of the capture at `path`, sent `repeat` times; 0: without end.

    Raises CaptureError also when the capture holds no packet.
    """
    capture = read_capture(path)
    if not len(capture):
        raise CaptureError(f"{path}: holds no packet, so there is nothing to replay")
    order = array("I", range(len(capture)))
    return _table(capture.frames, order, len(order) * repeat, capture.remark())


def from_flows(flows: FlowsConfig, destination: bytes, source: bytes = SENDER_MAC) -> FrameTable:
    """Frames of `flows.count` flows in all sizes that were asked for.

    A size that is too short for the headers (IPv6 with UDP needs 62 bytes, with TCP 74) becomes
    the shortest that holds them.
    """
    chance = random.Random(_SEED)
    pattern = [size for size, weight in flows.sizes for _ in range(weight)]
    chance.shuffle(pattern)
    makers = [_Flow(chance, number, flows, destination + source) for number in range(flows.count)]
    # Each pass sends every flow once; the sizes shift by one from pass to pass, so that in the
    # end every flow has been sent in every size, as often as its weight says.
    passes = min(len(pattern), max(1, _ORDER_MAX // flows.count))
    indices: dict[tuple[int, int], int] = {}
    order = array("I")
    for shift in range(passes):
        for number in range(flows.count):
            pair = number, pattern[(number + shift) % len(pattern)]
            order.append(indices.setdefault(pair, len(indices)))
    return _table((makers[number].frame(size) for number, size in indices), order, flows.packets)


def _table(
    frames: Iterable[bytes | memoryview], order: array[int], total: int, remark: str | None = None
) -> FrameTable:
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
    return FrameTable(b"".join(pieces), offsets, lengths, order, total, padded, oversize, remark)


_PAYLOAD = bytes(range(32, 127)) * 200


class _Flow:
    """One flow: what its frames share, and its frame of any size.

    Sums for checksums are plain integers: 65536 is 1 modulo 65535, so a 32-bit or 128-bit
    field adds as it is, and only the last step folds.
    """

    def __init__(
        self, chance: random.Random, number: int, flows: FlowsConfig, addresses: bytes
    ) -> None:
        # Every combination appears when both are mixed: 4 udp, 6 udp, 4 tcp, 6 tcp.
        self.ipv6 = flows.ip == "ipv6" or (flows.ip == "mixed" and number % 2 == 1)
        tcp = flows.protocol == "tcp" or (flows.protocol == "mixed" and number // 2 % 2 == 1)
        self.protocol = headers.PROTOCOL_TCP if tcp else headers.PROTOCOL_UDP
        # The number is in the source address and, above 65535, in the source port, so no two
        # flows are the same.
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
        """The frame of `size` bytes without CRC, or of as many as the headers need."""
        tcp = self.protocol == headers.PROTOCOL_TCP
        network_bytes = headers.IPV6_BYTES if self.ipv6 else headers.IPV4_BYTES
        transport_bytes = headers.TCP_BYTES if tcp else headers.UDP_BYTES
        fixed = headers.ETHERNET_BYTES + network_bytes + transport_bytes
        payload = _PAYLOAD[: max(size - fixed, 0)]
        length = transport_bytes + len(payload)
        # The pseudo header, the ports, then what differs.
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
            # 0 would mean: no checksum (RFC 768).
            transport = struct.pack("!IHH", self.ports, length, summed or 0xFFFF)
        return b"".join((self.ethernet, self._network(length), transport, payload))

    def _network(self, length: int) -> bytes:
        if self.ipv6:
            start = struct.pack("!IHBB", 6 << 28, length, self.protocol, 64)
            return start + self.source.to_bytes(16, "big") + self.destination.to_bytes(16, "big")
        total = length + headers.IPV4_BYTES
        # Version and header length, total length, no identification, don't fragment, TTL 64.
        words = 0x4500 + total + 0x4000 + (64 << 8 | self.protocol)
        summed = headers.checksum(b"", words + self.source + self.destination)
        return struct.pack(
            "!HHHHBBHII",
            *(0x4500, total, 0, 0x4000, 64, self.protocol, summed, self.source, self.destination),
        )
