"""A capture in a file or a pipe of this machine."""

from __future__ import annotations

import errno
import os
import stat

from ringline.shm.errors import reason_of
from ringline.shm.text import printable
from ringline.workers.captures.capture_table import CaptureError, Tally

PIECE_BYTES = 1 << 16


class LocalFile:
    """The file at `tally.file`, or the open `descriptor`, which stays open.

    size: of a regular file, in bytes; 0: unknown, as for a pipe.
    descriptor: a regular file. Read it with pread(2), which leaves the position alone.
    can_seek: `seek` works.

    Raises CaptureError when the file cannot be opened or read.
    """

    def __init__(self, tally: Tally, descriptor: int | None = None) -> None:
        self._name = tally.path
        self._given = descriptor is not None
        self._fd = _opened(tally.file) if descriptor is None else descriptor
        self.size = 0
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        name = self._name
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
        self._identity = _identity(found)

    @property
    def descriptor(self) -> int | None:
        return self._fd if self.size else None

    @property
    def can_seek(self) -> bool:
        return self.size > 0

    def read(self) -> bytes:
        """The next piece; b"" at the end."""
        while True:
            try:
                return os.read(self._fd, PIECE_BYTES)
            except BlockingIOError:  # whoever gave the pipe reads it in that way
                wait_for(self._fd, writing=False)
            except OSError as error:
                raise CaptureError(f"{self._name}: cannot be read: {reason_of(error)}") from error

    def seek(self, offset: int) -> None:
        """Go on at byte `offset`."""
        os.lseek(self._fd, offset, os.SEEK_SET)

    def expect(self, stop: int | None) -> None:
        """Bytes from `stop` on are hardly needed: the kernel reads ahead as it likes."""

    @property
    def identity(self) -> tuple[int | str, int | str, int, int | str]:
        """Device, inode, bytes and time of the last change (ns), when it was opened."""
        return self._identity

    def has_changed(self) -> bool:
        """Whether it is not any more what it was when it was opened."""
        return _identity(os.fstat(self._fd)) != self._identity

    def close(self) -> None:
        """Close the file, if it was opened here; may be called again."""
        if not self._given and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


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
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise CaptureError(f"{shown}: is a link, and what it leads to is not there") from error
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
