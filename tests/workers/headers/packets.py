"""Packets for the tests of the header tools. Who makes a packet knows where its headers are and
what its checksums cover, so the tests need no second parser."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from hypothesis import strategies as st

from ringline.workers.api import ICMP, ICMPV6, TCP, UDP

SCTP, OTHER = 132, 253
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
SEE_THROUGH = (HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION, 135, 139, 140)


def summed(data: bytes) -> int:
    """The one's complement sum of 16-bit words (RFC 1071), computed word by word."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass
class Made:
    """A whole packet. `final` is the destination in the pseudo header, None if nobody can know it.
    `first` and `later` say which part of a fragmented packet it is."""

    tags: list[int] = field(default_factory=list)
    version: int = 4
    source: bytes = bytes([10, 0, 0, 1])
    destination: bytes = bytes([10, 0, 0, 2])
    final: bytes | None = None
    options: bytes = b""
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    protocol: int = UDP
    segment: bytes = b""
    first: bool = False
    later: bool = False
    padding: int = 0

    @property
    def l3(self) -> int:
        return 14 + 4 * len(self.tags)

    @property
    def l4(self) -> int:
        size = 20 + len(self.options) if self.version == 4 else 40
        return self.l3 + size + sum(len(body) for _, body in self.extensions)

    @property
    def end(self) -> int:
        return self.l4 + len(self.segment)

    @property
    def checksum_at(self) -> int:
        """0 if there is none."""
        at = {TCP: 16, UDP: 6, (ICMP if self.version == 4 else ICMPV6): 2}.get(self.protocol)
        return 0 if at is None or self.later or len(self.segment) < at + 2 else self.l4 + at

    def frame(self) -> bytes:
        """The bytes. The checksums are those that `segment` and `options` have, or 0."""
        kind = 0x0800 if self.version == 4 else 0x86DD
        kinds = [*(0x8100 if n else 0x88A8 for n, _ in enumerate(self.tags)), kind]
        if len(self.tags) == 1:
            kinds[0] = 0x8100
        tags = b"".join(
            struct.pack("!HH", tag, kind) for tag, kind in zip(self.tags, kinds[1:], strict=True)
        )
        head = bytes(range(12)) + struct.pack("!H", kinds[0]) + tags
        return head + self._ip() + self.segment + b"\xa5" * self.padding

    def _ip(self) -> bytes:
        if self.version == 4:
            size = 20 + len(self.options)
            part = (
                (0x2000 if self.first else 0)
                | (5 if self.later else 0)
                | 0x4000 * (not self.first and not self.later)
            )
            start = struct.pack("!BBH", 0x40 | size // 4, 0, size + len(self.segment))
            start += struct.pack("!HHBBH", 7, part, 64, self.protocol, 0)
            return start + self.source + self.destination + self.options
        numbers = [number for number, _ in self.extensions] + [self.protocol]
        chain = b"".join(
            bytes([following]) + body[1:]
            for following, (_, body) in zip(numbers[1:], self.extensions, strict=True)
        )
        start = struct.pack("!IHBB", 6 << 28, len(chain) + len(self.segment), numbers[0], 64)
        return start + self.source + self.destination + chain

    def covered(self, frame: bytes) -> bytes | None:
        """What the transport checksum of `frame` covers, pseudo header included; None if nobody
        can compute it."""
        if not self.checksum_at or self.first or self.later:
            return None
        if self.final is None and self.protocol != ICMP:
            return None
        body = frame[self.l4 : self.end]
        if self.protocol == UDP:
            length = int.from_bytes(body[4:6], "big")
            if not 8 <= length <= len(body):
                return None
            body = body[:length]
        if self.protocol == TCP and len(body) < 20:
            return None
        if self.protocol == ICMP:
            return body
        assert self.final is not None
        return self.source + self.final + struct.pack("!IHH", len(body), 0, self.protocol) + body


def udp(ports: tuple[int, int], data: bytes, checksum: int = 1) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(data), checksum) + data


def tcp(ports: tuple[int, int], data: bytes, options: bytes = b"") -> bytes:
    size = 20 + len(options)
    return struct.pack("!HHIIBBHHH", *ports, 1, 2, size << 2, 0x10, 99, 0, 0) + options + data


def routing(kind: int, left: int, addresses: list[bytes]) -> bytes:
    """A routing header (RFC 8200 4.4, RFC 8754 2)."""
    last = len(addresses) - 1 if kind == 4 else 0
    body = bytes([0, 2 * len(addresses), kind, left, last, 0, 0, 0])
    return body + b"".join(addresses)


PORTS = st.tuples(st.integers(0, 65535), st.integers(0, 65535))
DATA = st.binary(max_size=60)


@st.composite
def segments(draw: st.DrawFn, protocol: int) -> bytes:
    """A TCP, UDP, ICMP, SCTP or other segment: now and then one with a wrong length."""
    if protocol == UDP:
        whole = udp(draw(PORTS), draw(DATA), draw(st.sampled_from([0, 1, 0xFFFF])))
        if draw(st.integers(0, 9)) == 0:
            whole = whole[:4] + struct.pack("!H", draw(st.integers(0, 90))) + whole[6:]
    elif protocol == TCP:
        whole = tcp(draw(PORTS), draw(DATA), draw(st.sampled_from([b"", bytes(4), bytes(40)])))
    elif protocol in (ICMP, ICMPV6):
        whole = bytes([8, 0]) + draw(st.binary(min_size=6, max_size=60))
    else:
        whole = draw(st.binary(min_size=4, max_size=60))
    return whole[: draw(st.integers(0, 30))] if draw(st.integers(0, 7)) == 0 else whole


@st.composite
def extensions(draw: st.DrawFn, made: Made) -> list[tuple[int, bytes]]:
    """IPv6 extension headers. A routing header with segments left sets `made.final`."""
    chain = []
    for number in draw(st.lists(st.sampled_from(SEE_THROUGH), max_size=3)):
        if number == AUTHENTICATION:
            body = bytes([0, 4]) + draw(st.binary(min_size=22, max_size=22))
        elif number == ROUTING:
            kind, left = draw(st.sampled_from([0, 2, 3, 4])), draw(st.integers(0, 2))
            addresses = draw(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=3))
            body = routing(kind, left, addresses)
            if left and made.final is not None:
                final = {0: addresses[-1], 2: addresses[-1], 4: addresses[0]}
                made.final = final.get(kind)
        else:
            units = draw(st.integers(0, 3))
            size = 6 + 8 * units
            body = bytes([0, units]) + draw(st.binary(min_size=size, max_size=size))
        chain.append((number, body))
    if made.first or made.later or draw(st.booleans()):
        part = 0xB8 if made.later else 0
        chain.append((FRAGMENT, struct.pack("!BBHI", 0, 0, part | made.first, 9)))
    return chain


@st.composite
def packets(draw: st.DrawFn) -> Made:
    """IPv4 and IPv6 packets of all kinds, whole."""
    version = draw(st.sampled_from([4, 6]))
    size = 4 if version == 4 else 16
    made = Made(version=version)
    made.tags = draw(st.lists(st.integers(0, 0xFFFF), max_size=3))
    made.source = draw(st.binary(min_size=size, max_size=size))
    made.destination = made.final = draw(st.binary(min_size=size, max_size=size))
    made.protocol = draw(st.sampled_from([TCP, UDP, ICMP, ICMPV6, SCTP, OTHER]))
    made.segment = draw(segments(made.protocol))
    part = draw(st.integers(0, 9))
    made.first, made.later = part == 0, part == 1
    if version == 6:
        made.extensions = draw(extensions(made))
    else:
        made.options = draw(st.sampled_from([b"", b"\1\1\1\0", b"\x94\4\0\0", bytes(40), *ROUTES]))
        if made.options == ROUTES[0]:
            made.final = None
    made.padding = draw(st.sampled_from([0, 0, 1, 18]))
    return made


# Loose source routes (RFC 791 3.1): the pointer is at the next address, or at the end.
ROUTES = [b"\1\x83\7\4\1\2\3\4", b"\1\x83\7\x08\1\2\3\4"]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames of all kinds: whole, cut off, with a changed byte, or nothing but random bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=80))
    frame = bytearray(draw(packets()).frame())
    kind = draw(st.integers(0, 3))
    if kind == 1:
        del frame[draw(st.integers(0, len(frame))) :]
    elif kind == 2:
        frame[draw(st.integers(12, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame)
