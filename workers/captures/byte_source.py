"""The bytes of a capture from its begin to its end: of a file or a pipe, decompressed.

Nothing is held but the piece at hand, so a file can be larger than memory, and a pipe has no end
that must be waited for.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator

from ringline.shm.errors import reason_of
from ringline.shm.text import printable
from ringline.workers.captures import decompression
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.decompression import PIECE_BYTES

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


class ByteSource:
    """The content of the file at `tally.file`, decompressed, as a window that moves forward.

    descriptor: an open file to read instead, which may be a pipe; it stays open.

    Attributes:
        data: the bytes in the window.
        base: offset of the first of them in the content, in bytes.

    Raises CaptureError when the file cannot be opened, read or decompressed.
    """

    def __init__(self, tally: Tally, descriptor: int | None = None) -> None:
        self._tally = tally
        self._given = descriptor is not None
        self._fd = _opened(tally.file) if descriptor is None else descriptor
        self._taken = 0  # bytes of the file
        self.size = 0  # of the file in bytes; 0: unknown, as for a pipe
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
        self._look_at_file()
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

    def _look_at_file(self) -> None:
        name = self._tally.path
        try:
            if os.isatty(self._fd):
                raise CaptureError(f"{name}: is a terminal; give it a capture, as in: < FILE")
            found = os.fstat(self._fd)
        except OSError as error:
            raise CaptureError(f"{name}: cannot be read: {reason_of(error)}") from error
        if stat.S_ISDIR(found.st_mode):
            raise CaptureError(f"{name}: is a directory; name a capture file in it")
        if stat.S_ISREG(found.st_mode):
            self.size = found.st_size

    def _read(self) -> Iterator[bytes]:
        while True:
            try:
                piece = os.read(self._fd, PIECE_BYTES)
            except BlockingIOError:  # whoever gave the pipe reads it in that way
                wait_for(self._fd, writing=False)
                continue
            except OSError as error:
                raise CaptureError(
                    f"{self._tally.path}: cannot be read: {reason_of(error)}"
                ) from error
            if not piece:
                return
            self._taken += len(piece)
            yield piece

    def need(self, at: int, count: int) -> bytes:
        """Move the window to its byte `at`, and extend it to `count` bytes, or to the end of the
        content; returns `data`."""
        rest = self.data[at:]
        self.base += at
        if len(rest) < count:
            pieces = [rest] if rest else []
            size = len(rest)
            while size < count and (piece := next(self._pieces, b"")):
                pieces.append(piece)
                size += len(piece)
            rest = b"".join(pieces) if len(pieces) != 1 else pieces[0]
        self.data = rest
        return rest

    def seek(self, offset: int) -> None:
        """Move the window to byte `offset` of a regular file that is not compressed."""
        os.lseek(self._fd, offset, os.SEEK_SET)
        self._taken = self.base = offset
        self.data = b""

    @property
    def is_compressed(self) -> bool:
        """Whether the content is decompressed."""
        return bool(self._tally.of)

    @property
    def descriptor(self) -> int | None:
        """The open file, if its bytes are those of the content; None: it is a pipe or compressed.
        Read it with pread(2), which leaves the position alone."""
        return self._fd if self.size and not self.is_compressed else None

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """Device, inode, bytes and time of the last change of the file (ns): another answer later
        means that the file has changed."""
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    @property
    def share(self) -> float:
        """How much of the file was read, from 0 to 1; 0 when its size is not known."""
        return min(self._taken / self.size, 1.0) if self.size else 0.0

    def close(self) -> None:
        """Close the file, if it was opened here; may be called again."""
        if not self._given and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def wait_for(descriptor: int, *, writing: bool) -> None:
    """Wait until a descriptor that never blocks can be read or written, or has failed."""
    import select

    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT if writing else select.POLLIN)
    waiting.poll()


def _opened(path: str) -> int:
    """Open a file for reading. It must be a regular file: to open a FIFO would block."""
    if not path:
        raise CaptureError("the name of the capture is empty; write the path of a file")
    shown = printable(path)
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise CaptureError(f"{shown}: is a directory; name a capture file in it")
        if not stat.S_ISREG(found.st_mode):
            raise CaptureError(f"{shown}: is not a regular file; a capture must be one")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except ValueError as error:  # a zero byte in the name
        raise CaptureError(f"{path!r}: is not a file name") from error
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise CaptureError(
                f"{shown}: there is no such capture file (looked from {_folder()})"
            ) from error
        raise CaptureError(f"{shown}: cannot be read: {reason_of(error)}") from error


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "a folder that no longer exists"
