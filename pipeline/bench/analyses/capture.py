"""The captures of `bench analyze`: the same packets whenever they are made.

A capture has FLOWS flows. Each packet belongs to a random flow, in a random direction, and comes 1
to 19 us after the one before it. Three of four flows are TCP, without SYN and FIN, so that every
program sees one connection; the others are UDP.
"""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

FLOWS = 10_000
BEGIN = 1_700_000_000 * 1_000_000  # us since 1970
TCP, UDP = 6, 17
EPHEMERAL = 49152  # from here on no port belongs to a tunnel, which a program would look into
CRC = 4  # bytes that a frame has on the wire, and not in a capture
_IN_ONE_WRITE = 4096


class Mix(NamedTuple):
    """The frames of a capture.

    name: for the table.
    sizes: pairs (bytes of a frame in the capture, share of the packets).
    ipv6: of so many flows, one is IPv6; 0: none.
    rate: packets of a capture for each second that programs may take: captures of all mixes have
        300 to 600 MB for one, and hundreds of packets of each flow.
    """

    name: str
    sizes: tuple[tuple[int, float], ...]
    ipv6: int
    rate: int


MIXES = (
    Mix("64 bytes", ((64 - CRC, 1.0),), 0, 4_000_000),
    Mix("560 bytes", ((64 - CRC + 14, 0.53), (576, 0.2), (1514, 0.27)), 10, 1_000_000),
    Mix("1514 bytes", ((1514, 1.0),), 10, 400_000),
)


def make(path: Path, mix: Mix, packets: int) -> int:
    """Write a capture; returns its bytes."""
    chance = random.Random(packets)
    frames = _frames(mix)
    shares = list(accumulate(share for _, share in mix.sizes))
    which = range(len(mix.sizes))
    time = BEGIN
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(0, packets, _IN_ONE_WRITE):
            count = min(_IN_ONE_WRITE, packets - number)
            pieces = []
            for size, flow, later in zip(
                chance.choices(which, cum_weights=shares, k=count),
                chance.choices(range(2 * FLOWS), k=count),
                chance.choices(range(1, 20), k=count),
                strict=True,
            ):
                time += later
                frame = frames[size][flow]
                length = len(frame)
                pieces.append(
                    struct.pack("=IIII", time // 1_000_000, time % 1_000_000, length, length)
                )
                pieces.append(frame)
            file.write(b"".join(pieces))
        return file.tell()


@functools.cache
def _frames(mix: Mix) -> list[list[bytes]]:
    """The frames of all flows in both directions, for each size."""
    return [
        [frame for flow in range(FLOWS) for frame in _both(flow, size, mix.ipv6)]
        for size, _ in mix.sizes
    ]


def _both(flow: int, size: int, ipv6: int) -> Iterator[bytes]:
    """A frame of the flow in each direction."""
    is_six = ipv6 and flow % ipv6 == 0
    here = struct.pack("!I", 0x0A000000 + flow * 7 % 50_000)
    there = struct.pack("!I", 0xC0A80000 + flow * 13 % 500)
    if is_six:
        here, there = (b"\x20\x01\x0d\xb8" + bytes(8) + address for address in (here, there))
    ports = EPHEMERAL + flow, 443
    protocol = UDP if flow % 4 == 3 else TCP
    for source, target, source_port, target_port in (
        (here, there, *ports),
        (there, here, *ports[::-1]),
    ):
        room = size - 14 - (40 if is_six else 20)
        if protocol == UDP:
            inner = struct.pack("!HHHH", source_port, target_port, room, 0)
        else:
            inner = struct.pack("!HHIIBBHHH", source_port, target_port, 1, 1, 0x50, 0x18, 512, 0, 0)
        inner = inner.ljust(room, b"\0")
        if is_six:
            outer = struct.pack("!IHBB", 6 << 28, room, protocol, 64) + source + target
        else:
            outer = _ipv4(protocol, room, source, target)
        kind = b"\x86\xdd" if is_six else b"\x08\x00"
        yield b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + kind + outer + inner


def _ipv4(protocol: int, room: int, source: bytes, target: bytes) -> bytes:
    """A header with its checksum (RFC 1071)."""
    words = struct.pack("!BBHHHBBH", 0x45, 0, 20 + room, 1, 0, 64, protocol, 0) + source + target
    total = sum(struct.unpack("!10H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return words[:10] + struct.pack("!H", 0xFFFF - total) + words[12:]
