"""The bytes of a capture from its begin to its end: of a file or a pipe, decompressed.

Nothing is held but the piece at hand, so a file can be larger than memory, and a pipe has no end
that must be waited for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from ringline.workers.captures import decompression
from ringline.workers.captures.capture_table import Tally
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.files.local import LocalFile
from ringline.workers.captures.files.names import is_url

# Paths that name a file descriptor of this process. The shell's `<(command)` is one, too.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def descriptor_named(path: str, standard: int) -> int | None:
    """The file descriptor that `path` names, or None: `/dev/fd/3`, `/dev/stdout`, or `-`, which
    is the descriptor `standard`.

    Such a path means something only in the process that the user started, not in its children.
    """
    if path == "-":
        return standard
    found = _DESCRIPTOR.fullmatch(path)
    return int(found[1]) if found else _STREAMS.get(path)


class File(Protocol):
    """What LocalFile and RemoteFile in files/ offer; they describe it."""

    size: int

    @property
    def descriptor(self) -> int | None: ...
    @property
    def can_seek(self) -> bool: ...
    @property
    def identity(self) -> tuple[int | str, int | str, int, int | str]: ...
    def read(self) -> bytes: ...
    def seek(self, offset: int) -> None: ...
    def expect(self, stop: int | None) -> None: ...
    def has_changed(self) -> bool: ...
    def close(self) -> None: ...


class ByteSource:
    """The content of the file at `tally.file`, decompressed, as a window that moves forward.

    descriptor: an open file to read instead, which may be a pipe; it stays open.
    access: `tally.file` may be a URL.
    file: where the bytes are, if they are in no file; it is closed with this object.

    Attributes:
        data: the bytes in the window.
        base: offset of the first of them in the content, in bytes.

    Raises CaptureError when the file cannot be opened, read or decompressed.
    """

    def __init__(
        self,
        tally: Tally,
        descriptor: int | None = None,
        access: Access | None = None,
        file: File | None = None,
    ) -> None:
        self._tally = tally
        self._file = file or _opened(tally, descriptor, access)
        self._taken = 0  # bytes of the file
        self.size = self._file.size  # of the file in bytes; 0: unknown, as for a pipe
        self.data = b""
        self.base = 0
        self._pieces: Iterator[bytes] = self._read()
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Look at the first bytes, and decompress from now on if they say so."""
        begin = self.need(0, decompression.MAGIC_BYTES)
        known = decompression.format_of(begin)
        if known is not None:
            raw = self._then(begin, self._pieces)
            self._pieces = decompression.decompressed(self._tally, known, raw)
            self._tally.of = " after decompression"
            self.data = b""

    @staticmethod
    def _then(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
        yield first
        yield from others

    def _read(self) -> Iterator[bytes]:
        while piece := self._file.read():
            self._taken += len(piece)
            yield piece

    def need(self, at: int, count: int) -> bytes:
        """Move the window to its byte `at`, and extend it to `count` bytes, or to the end of the
        content; returns `data`. After CutShort, what came before the cut is in the window."""
        rest = self.data[at:]
        self.base += at
        if len(rest) < count:
            pieces = [rest] if rest else []
            size = len(rest)
            try:
                while size < count and (piece := next(self._pieces, b"")):
                    pieces.append(piece)
                    size += len(piece)
            finally:
                rest = b"".join(pieces) if len(pieces) != 1 else pieces[0]
                self.data = rest
        self.data = rest
        return rest

    def seek(self, offset: int) -> None:
        """Move the window to byte `offset` of a file with `can_seek`."""
        self._file.seek(offset)
        self._taken = self.base = offset
        self.data = b""

    def expect(self, stop: int | None) -> None:
        """Tell that few bytes from byte `stop` of the file on are needed; None: all are."""
        self._file.expect(stop)

    @property
    def is_compressed(self) -> bool:
        """Whether the content is decompressed."""
        return bool(self._tally.of)

    @property
    def can_seek(self) -> bool:
        """Whether a part of the content can be read alone."""
        return not self.is_compressed and self._file.can_seek

    @property
    def descriptor(self) -> int | None:
        """The open file, if it is a regular one whose bytes are those of the content, else None.
        Read it with pread(2), which leaves the position alone."""
        return None if self.is_compressed else self._file.descriptor

    @property
    def identity(self) -> tuple[int | str, int | str, int, int | str]:
        """What the file was when it was opened; the third number is its size in bytes."""
        return self._file.identity

    def has_changed(self) -> bool:
        """Whether the file is not any more what it was when it was opened."""
        return self._file.has_changed()

    @property
    def share(self) -> float:
        """How much of the file was read, from 0 to 1; 0 when its size is not known."""
        return min(self._taken / self.size, 1.0) if self.size else 0.0

    def close(self) -> None:
        """Close the file, if it was opened here; may be called again."""
        self._file.close()


def _opened(tally: Tally, descriptor: int | None, access: Access | None) -> File:
    if access is None or descriptor is not None or not is_url(tally.file):
        return LocalFile(tally, descriptor)
    from ringline.workers.captures.files.remote import RemoteFile

    return RemoteFile(tally, access)
