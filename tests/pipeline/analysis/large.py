"""Makes large captures quickly: whole groups of packets as arrays."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

SIZES = (60, 1514, 90, 1514, 60, 590, 1514, 340)  # bytes of the frames of a group
START = 1_700_000_000
GROUPS = 1024  # that are made at a time


def write(
    path: Path, size: int, flows: int, *, sizes: tuple[int, ...] = SIZES, seed: int = 1
) -> int:
    """Write a pcap file of about `size` bytes with TCP and UDP in about `flows` flows, and a packet
    each 10 µs; returns the number of packets. A flow has packets in both directions."""
    rng = np.random.default_rng(seed)
    group = np.frombuffer(b"".join(_packet(it) for it in sizes), np.uint8)
    starts = np.cumsum([0, *(16 + it for it in sizes)])[:-1]
    count = 0
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        while file.tell() < size:
            rows = np.tile(group, (GROUPS, 1))
            for start in starts.tolist():
                number = count + len(sizes) * np.arange(GROUPS) + starts.tolist().index(start)
                _fill(rows[:, start : start + 16 + 54], number, rng.integers(0, flows, GROUPS), rng)
            file.write(rows.tobytes())
            count += GROUPS * len(sizes)
    return count


def _packet(size: int) -> bytes:
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, size - 14, 0, 0, 64, 6, 0, 0, 0)
    tcp = struct.pack(">HHIIBBHHH", 0, 0, 0, 0, 0x50, 16, 1000, 0, 0)
    frame = bytes(12) + b"\x08\x00" + ip + tcp
    return struct.pack("<IIII", 0, 0, size, size) + frame + bytes(size - len(frame))


def _fill(rows: np.ndarray, number: np.ndarray, flow: np.ndarray, rng: np.random.Generator) -> None:
    """Set times, addresses, ports, protocols and flags of one packet of each group."""

    def put(at: int, kind: str, values: np.ndarray) -> None:
        width = np.dtype(kind).itemsize
        rows[:, at : at + width] = values.astype(kind).view(np.uint8).reshape(-1, width)

    time = number * 10_000
    put(0, "<u4", START + time // 1_000_000_000)
    put(4, "<u4", time % 1_000_000_000)
    way = rng.integers(0, 2, len(flow)).astype(bool)
    mixed = flow * 2_654_435_761 & 0xFFFFFFFF
    ends = [(0x0A000000 | mixed >> 12, 1024 + flow % 60_000), (0xAC100000 | mixed & 0xFFF, 443)]
    for at, port_at, a, b in ((42, 50, *ends), (46, 52, *ends[::-1])):
        put(at, ">u4", np.where(way, a[0], b[0]))
        put(port_at, ">u2", np.where(way, a[1], b[1]))
    rows[:, 39] = np.where(flow % 4 == 0, 17, 6)
    # In UDP, the fourth word of the header is its length.
    length = rows[:, 32].astype(np.uint32) << 8 | rows[:, 33]
    put(54, ">u2", np.where(flow % 4 == 0, length - 20, 0))
    rows[:, 63] = np.where(flow % 4 == 0, 0, 2 ** rng.integers(0, 5, len(flow)))
