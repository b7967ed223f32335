"""Writes the packets of a range of a capture to disk, divided into shares by flow.

A spill is a pcapng file, so every program that reads captures reads it. It has a section, two
interfaces, and chunks: enhanced packet blocks of one share behind each other, in order of time.
The last block, of a type for local use, is an index: where the chunks of each share are.
"""

from __future__ import annotations

import mmap
import os
import struct
import uuid
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

from ringline.shm._shm import lib as shm
from ringline.shm.errors import Bug, EnvironmentLacks, reason_of
from ringline.shm.text import printable
from ringline.workers._workers import ffi, lib
from ringline.workers.analysis.runner import BUFFER_BYTES
from ringline.workers.analysis.runs import no_folder
from ringline.workers.captures.capture_table import FRAME_BYTES_MAX, LINK_TYPE_ETHERNET
from ringline.workers.captures.scanner import OWN_BYTES, Scanner
from ringline.workers.named.part import Part

MEMORY_BYTES = 32 << 20  # of the chunks of all shares
CHUNK_BYTES = 256 << 10  # of one chunk, at most
INDEX = 0x8000_0001  # type of the last block
ENTRY = struct.Struct("<QQqq")  # of a chunk: offset, bytes, first and last time
# At the end of the body: entries, shares, and a mark.
TRAILER = struct.Struct("<QQQ")
MARK = int.from_bytes(b"ringline", "little")
EARLY = -9_223_372_037  # seconds that interface 1 adds: RL_EARLY in record.h


class Chunk(NamedTuple):
    """Packets of one share in a spill, in order of time."""

    offset: int
    bytes: int
    first: int
    last: int


def file_header() -> bytes:
    """A section, and two interfaces for frames of Ethernet with times in nanoseconds: 0, and 1 for
    times before 1970."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    head = struct.pack("<HHI", LINK_TYPE_ETHERNET, 0, FRAME_BYTES_MAX)
    nanoseconds = struct.pack("<HHB3x", 9, 1, 9)
    early = struct.pack("<HHq", 14, 8, EARLY)
    end = bytes(4)
    return (
        _block(0x0A0D0D0A, section)
        + _block(1, head + nanoseconds + end)
        + _block(1, head + nanoseconds + early + end)
    )


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


class SpillWriter:
    """A new spill, whose path begins with `base`: a task that is done again finds what a dead
    process left there. Raises EnvironmentLacks when there is no room; then, and without `finish`,
    `close` removes the file."""

    def __init__(self, base: str, shares: int) -> None:
        self.path = f"{base}-{uuid.uuid4().hex}.pcapng"
        self.bytes = array("Q", bytes(8 * shares))  # of packets in each share
        self._chunks = [array("q") for _ in range(shares)]
        self._at = 0
        self._is_whole = False
        try:
            self._fd = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except FileNotFoundError:
            raise no_folder(os.path.dirname(base)) from None
        except OSError as error:
            raise self._failure(error) from None
        self._write(file_header())

    def add(self, share: int, data: Any, first: int, last: int) -> None:
        """Write a chunk of a share."""
        size = len(data)
        self._chunks[share].extend((self._at, size, first, last))
        self.bytes[share] += size
        self._write(data)

    def finish(self) -> None:
        """Write the index."""
        bounds = array("Q", [0])
        body = bytearray()
        for chunks in self._chunks:
            body += chunks.tobytes()
            bounds.append(len(body) // ENTRY.size)
        body += bounds.tobytes()
        body += TRAILER.pack(bounds[-1], len(self._chunks), MARK)
        self._write(_block(INDEX, bytes(body)))
        self._is_whole = True

    def _write(self, data: Any) -> None:
        left = memoryview(data)
        try:
            while left:
                done = os.write(self._fd, left)
                self._at += done
                left = left[done:]
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> EnvironmentLacks:
        folder = printable(os.path.dirname(self.path))
        return EnvironmentLacks(
            f"{folder}: the packets of an analysis by flow cannot be written: {reason_of(error)}; "
            "it needs about as much room as the captures have without compression: name a folder "
            "that has it with --scratch"
        )

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if not self._is_whole:
                os.unlink(self.path)


class Sharer:
    """Divides what `scan` reads; it stands where a Runner does, and runs no plugin.

    job: `spill`, how the path begins; `shares`, their number; `place` of the range among all
        ranges; `packets` before the range.
    page: cdata uint64_t *, where the number of packets is shown.
    """

    def __init__(self, job: Mapping[str, Any], page: Any) -> None:
        count = job["shares"]
        self._room = max(min(MEMORY_BYTES // count, CHUNK_BYTES), 4096) & ~3
        self._buffers = mmap.mmap(-1, 64 * BUFFER_BYTES + OWN_BYTES, mmap.MAP_PRIVATE)
        self._view = memoryview(self._buffers)
        self._memory = mmap.mmap(-1, count * self._room, mmap.MAP_PRIVATE)
        self._shares = ffi.new("struct rl_share[]", count)
        self._sorted = ffi.new("uint8_t[]", max(self._room, lib.RL_RECORD_MAX))
        self._places = ffi.new("uint64_t[]", 3 * (self._room // lib.RL_RECORD_BYTES + 1))
        self._sharing = sharing = ffi.new("struct rl_sharing *")
        sharing.memory = ffi.from_buffer("uint8_t[]", self._memory)
        sharing.sorted, sharing.places = self._sorted, self._places
        sharing.shares, sharing.count, sharing.room = self._shares, count, self._room
        sharing.range = job["place"] << lib.RL_NUMBER_BITS
        sharing.before = job["packets"]
        sharing.progress = page
        self.scan = ffi.addressof(sharing, "scan")
        self.scan.memory = ffi.from_buffer("uint8_t[]", self._buffers)
        self.scan.own = self.scan.memory + 64 * BUFFER_BYTES
        self._spill = SpillWriter(job["spill"], count)

    def run(self, scanner: Scanner) -> None:
        """Divide all packets of `scanner`. Raises CaptureError, EnvironmentLacks."""
        sharing, run = self._sharing, lib.rl_share_run
        while not scanner.ended:
            why = run(sharing)
            if why == lib.RL_SHARE_FULL:
                self._write(sharing.full)
            elif why == lib.RL_SHARE_LARGE:
                self._write_large()
            elif why == lib.RL_SCAN_STOP:
                break
            elif why == lib.RL_SCAN_ODD or not scanner.extend():
                self._read(scanner)
        sharing.why = lib.RL_SCAN_STOP
        while (why := run(sharing)) != lib.RL_SCAN_STOP:
            if why == lib.RL_SHARE_FULL:
                self._write(sharing.full)
            elif why == lib.RL_SHARE_LARGE:
                self._write_large()
            else:
                raise Bug(f"the packets of a range cannot be divided ({why})")
            sharing.why = lib.RL_SCAN_STOP
        scanner.finish()

    def _read(self, scanner: Scanner) -> None:
        """Let Python read the next packet, and give it to the loop."""
        frame = scanner.read()
        if frame is None:
            return
        size = min(len(frame.data), lib.RL_SCAN_FRAME_MAX)
        self.scan.clipped += len(frame.data) > size
        start = shm.RL_BUFFER_HEADROOM
        self._view[start : start + size] = frame.data[:size]
        original = min(frame.original, 0xFFFF_FFFF)
        lib.rl_share_one(self._sharing, size, original, frame.nanoseconds)

    def _write(self, which: int) -> None:
        share = self._shares[which]
        size, first, last = share.bytes, share.first, share.last
        data = ffi.buffer(lib.rl_share_take(self._sharing, which), size)
        self._spill.add(which, data, first, last)

    def _write_large(self) -> None:
        sharing = self._sharing
        data = ffi.buffer(self._sorted, sharing.bytes)
        self._spill.add(sharing.full, data, sharing.time, sharing.time)

    def finish(self) -> Part:
        """Write what is left, and the index."""
        for which, share in enumerate(self._shares):
            if share.bytes:
                self._write(which)
        self._spill.finish()
        return Part()

    @property
    def complaints(self) -> list[tuple[int, str]]:
        """None: no plugin runs."""
        return []

    def numbers(self) -> dict[str, Any]:
        """Where the packets are, as JSON values; counters come when the plugin runs."""
        return {
            "spill": self._spill.path,
            "shares": self._spill.bytes.tolist(),
            "clipped": int(self.scan.clipped),
            "wire_bytes": 0,
            "nanoseconds": 0.0,
            **{name: {} for name in ("counters", "drops", "sums", "gauges", "headings")},
            **{name: [] for name in ("complaints", "trace", "remarks")},
        }

    def close(self) -> None:
        """Close the spill; one that is not finished is removed."""
        self._spill.close()
