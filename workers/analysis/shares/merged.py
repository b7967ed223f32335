"""One share of all captures as a capture in order of time, read from spills.

Memory does not grow with the share: a chunk is read when the packets before it have been merged.
Where more chunks overlap than memory may hold, some of them are merged into a new spill first.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.text import printable
from ringline.workers._workers import ffi, lib
from ringline.workers.analysis.shares.spill import (
    CHUNK_BYTES,
    EARLY,
    ENTRY,
    MARK,
    TRAILER,
    Chunk,
    SpillWriter,
    file_header,
)

MEMORY_BYTES = 48 << 20  # of the chunks that are merged at a time
_OPEN_FILES = 32
_NO_STOP = (1 << 64) - 1
_BITS: int = lib.RL_NUMBER_BITS


class _Placed(NamedTuple):
    """A chunk and its spill; sorts by time."""

    first: int
    spill: int
    chunk: Chunk


class _Spills:
    """The spills at `paths`, of which a few are open at a time."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        self._open: dict[int, int] = {}

    def read(self, spill: int, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`. Raises EnvironmentLacks."""
        try:
            if spill not in self._open:
                if len(self._open) >= _OPEN_FILES:
                    os.close(self._open.pop(next(iter(self._open))))
                self._open[spill] = os.open(self.paths[spill], os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._open[spill], size, offset)
        except OSError as error:
            raise self.failure(spill, reason_of(error)) from None
        if len(data) < size:
            raise self.failure(spill, f"it ends after {offset + len(data)} bytes")
        return data

    def failure(self, spill: int, why: str) -> EnvironmentLacks:
        """The error of a spill that cannot be used."""
        import socket

        return EnvironmentLacks(
            f"{printable(self.paths[spill])}: cannot be read on the host {socket.gethostname()}: "
            f"{why}; --scratch must name a folder that all workers share and nobody else cleans"
        )

    def chunks(self, spill: int, share: int) -> Iterator[_Placed]:
        """The chunks of a share in one spill."""
        try:
            size = os.stat(self.paths[spill]).st_size
        except OSError as error:
            raise self.failure(spill, reason_of(error)) from None
        at = size - 4 - TRAILER.size
        entries, shares, mark = TRAILER.unpack(self.read(spill, max(at, 0), TRAILER.size))
        bounds_at = at - 8 * (shares + 1)
        begin = bounds_at - ENTRY.size * entries
        if mark != MARK or begin < 0 or share >= shares:
            raise self.failure(spill, "its index is damaged")
        begin_entry, end_entry = array("Q", self.read(spill, bounds_at + 8 * share, 16))
        if not begin_entry <= end_entry <= entries:
            raise self.failure(spill, "its index is damaged")
        at, count = begin + ENTRY.size * begin_entry, end_entry - begin_entry
        data = self.read(spill, at, ENTRY.size * count)
        for fields in ENTRY.iter_unpack(data):
            chunk = Chunk(*fields)
            if chunk.offset + chunk.bytes > begin:
                raise self.failure(spill, "its index is damaged")
            yield _Placed(chunk.first, spill, chunk)

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


class _Merging:
    """Merges chunks that come in order of their first times."""

    def __init__(
        self, spills: _Spills, chunks: Sequence[_Placed], show: Callable[[], None]
    ) -> None:
        self._spills = spills
        self._chunks = chunks
        self._show = show
        self._next = 0
        self._out = bytearray(max(CHUNK_BYTES, lib.RL_RECORD_MAX))
        self._held: dict[int, bytes] = {}
        self._heap = ffi.new("struct rl_merge_chunk[]", _most_open(chunks) + 1)
        self.merge = ffi.new("struct rl_merge *")
        self.merge.heap = self._heap
        self.merge.stop_at = _NO_STOP

    def pieces(self) -> Iterator[bytes]:
        """Blocks in order. Raises EnvironmentLacks when a chunk is damaged."""
        merge, chunks = self.merge, self._chunks
        why = ffi.new("uint32_t *")
        room, out = len(self._out), ffi.from_buffer("uint8_t[]", self._out)
        done = 0
        while merge.packets < merge.stop_at:
            self._open_next()
            merge.more = self._next < len(chunks)
            merge.until = chunks[self._next].first if merge.more else 0
            done += lib.rl_merge_run(merge, out + done, room - done, why)
            if why[0] in (lib.RL_MERGE_ENDED, lib.RL_MERGE_WRONG):
                del self._held[merge.ended]
                if why[0] == lib.RL_MERGE_WRONG:
                    raise self._spills.failure(chunks[merge.ended].spill, "it is damaged")
            elif why[0] == lib.RL_MERGE_ROOM:
                yield bytes(memoryview(self._out)[:done])
                done = 0
            elif not merge.more and not merge.count:
                break
        if done:
            yield bytes(memoryview(self._out)[:done])

    def _open_next(self) -> None:
        """Read the chunks that may have the next packet."""
        merge, chunks = self.merge, self._chunks
        while self._next < len(chunks):
            _, spill, chunk = chunks[self._next]
            if merge.count and merge.heap[0].time < chunk.first:
                return
            data = self._spills.read(spill, chunk.offset, chunk.bytes)
            self._held[self._next] = data
            if not lib.rl_merge_add(merge, ffi.from_buffer(data), len(data), self._next):
                raise self._spills.failure(spill, "it is damaged")
            self._next += 1
            self._show()


def _overlaps(chunks: Sequence[_Placed]) -> Iterator[tuple[int, int]]:
    """How many chunks, and how many bytes of them, are needed at the same time."""
    ends: list[tuple[int, int]] = []
    size = 0
    for first, _, chunk in chunks:
        while ends and ends[0][0] < first:
            size -= heapq.heappop(ends)[1]
        heapq.heappush(ends, (chunk.last, chunk.bytes))
        size += chunk.bytes
        yield len(ends), size


def _most_open(chunks: Sequence[_Placed]) -> int:
    return max((count for count, _ in _overlaps(chunks)), default=0)


def _most_bytes(chunks: Sequence[_Placed]) -> int:
    return max((size for _, size in _overlaps(chunks)), default=0)


class Merged:
    """The packets of one share of all spills in the list at `job["spills"]`, as the bytes of a
    pcapng file; it stands where a file does (`File` in captures/byte_source.py).

    page: cdata uint64_t *: its second word counts steps.
    """

    size = 0  # not known
    descriptor = None
    can_seek = False
    identity = (0, 0, 0, 0)

    def __init__(self, job: Mapping[str, Any], page: Any) -> None:
        self._page = page
        self._listed = job["spills"]
        self._share = job["share"]
        self._made: list[str] = []
        paths = self._paths()
        self._spills = _Spills(paths)
        try:
            chunks: list[_Placed] = []
            for number in range(len(paths)):
                chunks += self._spills.chunks(number, self._share)
            self._chunks = self._reduced(sorted(chunks))
        except BaseException:
            self.close()
            raise
        self._merging = self._new_merging()
        self._content = self._pieces()

    def _paths(self) -> list[str]:
        if self._listed is None:
            return []
        try:
            with open(self._listed, encoding="utf-8") as file:
                names = json.load(file)
        except (OSError, ValueError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else "it is damaged"
            raise _Spills([self._listed]).failure(0, reason) from None
        return [os.path.join(os.path.dirname(self._listed), name) for name in names]

    def _show(self) -> None:
        self._page[1] += 1

    def _new_merging(self) -> _Merging:
        return _Merging(self._spills, self._chunks, self._show)

    def _pieces(self) -> Iterator[bytes]:
        yield file_header()
        yield from self._merging.pieces()

    def _reduced(self, chunks: list[_Placed]) -> list[_Placed]:
        """The same packets in chunks of which those that overlap have room in memory."""
        most, before = _most_bytes(chunks), _NO_STOP
        while MEMORY_BYTES < most < before:
            writer = SpillWriter(f"{self._listed}-{self._share}", 1)
            self._made.append(writer.path)
            try:
                for group in _groups(chunks):
                    self._rewrite(writer, group)
                writer.finish()
            finally:
                writer.close()
            self._spills.paths.append(writer.path)
            chunks = sorted(self._spills.chunks(len(self._spills.paths) - 1, 0))
            most, before = _most_bytes(chunks), most
        return chunks

    def _rewrite(self, writer: SpillWriter, group: Sequence[_Placed]) -> None:
        merging = _Merging(self._spills, group, self._show)
        for piece in merging.pieces():
            writer.add(0, piece, _time_of(piece), int(merging.merge.time))

    def origin(self, number: int) -> tuple[int, int, int]:
        """The time of packet `number`, from 1, the place of its range, and its number there."""
        merging = self._new_merging()
        merging.merge.stop_at = number
        for _ in merging.pieces():
            pass
        return _key(merging)

    def places(self, complaints: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """When all is read: the origins of the last packet and of that of the first complaint about
        one, as a part of the answer. The place -1 means that it is about no packet."""
        first = sorted(complaints, key=lambda it: not it[0])[:1]
        return {
            "newest": _key(self._merging) if self._merging.merge.packets else None,
            "complaints": [
                (*(self.origin(number) if number else (0, -1, 0)), what) for number, what in first
            ],
        }

    def read(self) -> bytes:
        """The next piece; b"" at the end. Raises EnvironmentLacks."""
        return next(self._content, b"")

    def seek(self, offset: int) -> None:
        """Nobody asks for it: `can_seek` is false."""
        raise NotImplementedError

    def expect(self, stop: int | None) -> None:
        """All bytes are needed."""

    def has_changed(self) -> bool:
        """Nobody changes spills."""
        return False

    def close(self) -> None:
        """Close the spills, and remove those that were made here; may be called again."""
        self._spills.close()
        for path in self._made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._made = []


def _time_of(block: bytes) -> int:
    """The time of the first packet."""
    interface, high, low = struct.unpack_from("<III", block, 8)
    return int(high << 32 | low) + (EARLY * 1_000_000_000 if interface else 0)


def _key(merging: _Merging) -> tuple[int, int, int]:
    number = int(merging.merge.id)
    return int(merging.merge.time), number >> _BITS, number & ((1 << _BITS) - 1)


def _groups(chunks: Sequence[_Placed]) -> Iterator[list[_Placed]]:
    """Neighbours that have room in memory together."""
    group: list[_Placed] = []
    size = 0
    for it in chunks:
        if group and size + it.chunk.bytes > MEMORY_BYTES:
            yield group
            group, size = [], 0
        group.append(it)
        size += it.chunk.bytes
    if group:
        yield group
