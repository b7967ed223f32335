"""Capture files: read pcap and pcapng, write pcap.

`ringline try` runs a plugin on a capture; the wire of a simulated card replays and records
captures. For any content of a file, reading it gives a Capture, or a CaptureError that says
what is wrong and where. Memory and time are proportional to the size of the file: every
length in it is compared with the bytes that exist before it is used.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterable
from types import TracebackType

from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.workers.captures import pcap, pcapng
from ringline.workers.captures.capture_table import Capture, CaptureError, Frames

__all__ = [
    "Capture",
    "CaptureError",
    "CaptureWriter",
    "Frames",
    "descriptor_named",
    "read_capture",
    "write_capture",
]

Bytes = bytes | bytearray | memoryview

# The whole file is kept in memory, so its size has a limit.
CAPTURE_BYTES_MAX = 4 << 30
_WRITE_BYTES = 1 << 16  # are collected before they are written

# First bytes of files that users often name instead of a capture -> the problem and what to do.
_NOT_CAPTURES = {
    b"\x1f\x8b": "is compressed with gzip; decompress it first: gunzip {path}",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; decompress it first: unzstd {path}",
    b"\xfd7zXZ": "is compressed with xz; decompress it first: unxz {path}",
    b"BZh": "is compressed with bzip2; decompress it first: bunzip2 {path}",
    b"\x04\x22\x4d\x18": "is compressed with lz4; decompress it first: unlz4 {path}",
    b"PK\x03\x04": "is a zip archive; take the capture out of it first",
    b"\x34\xcd\xb2\xa1": "is in Kuznetzov's variant of pcap; "
    "convert it with editcap -F pcap {path} NEW",
    b"\xa1\xb2\xcd\x34": "is in Kuznetzov's variant of pcap; "
    "convert it with editcap -F pcap {path} NEW",
    b"snoop\0": "is a snoop capture; convert it with editcap -F pcap {path} NEW",
}


# Paths that name a file descriptor of this process. The shell's `<(command)` is one, too.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_PIECE_BYTES = 1 << 20  # of a pipe, read at once


def descriptor_named(path: str, standard: int) -> int | None:
    """The file descriptor that `path` names, or None: `/dev/fd/3`, `/dev/stdout`, or `-`, which
    is the descriptor `standard`.

    Such a path means something only in the process that the user started, not in its children.
    """
    if path == "-":
        return standard
    found = _DESCRIPTOR.fullmatch(path)
    return int(found[1]) if found else _STREAMS.get(path)


def read_capture(path: str | os.PathLike[str], *, descriptor: int | None = None) -> Capture:
    """Read the pcap or pcapng file at `path`; its first bytes tell the format.

    descriptor: an open file to read instead, which may be a pipe; `path` is for messages then.

    Raises CaptureError when the file does not exist, cannot be read, or is not a complete
    capture of Ethernet frames. A capture without packets, and what `Capture.remarks` tells, are
    not errors.
    """
    name = os.fspath(path)
    data = _read(name) if descriptor is None else _read_open(name, descriptor)
    capture = Capture(name, data)
    if data[:4] in pcap.MAGICS:
        pcap.read_pcap(capture)
    elif data[:4] == pcapng.MAGIC:
        pcapng.read_pcapng(capture)
    else:
        raise CaptureError(_what_it_is_instead(name, data))
    return capture


def is_capture(begin: bytes) -> bool:
    """Whether a file that begins with these 4 bytes is a capture, complete or not."""
    return begin in pcap.MAGICS or begin == pcapng.MAGIC


def is_our_capture(begin: bytes) -> bool:
    """Whether a file that begins with these FILE_HEADER_BYTES was written by ringline."""
    return pcap.is_ours(begin)


def _read(path: str) -> bytes:
    """The content of a file. It must be a regular file: to open a FIFO would block."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise CaptureError(f"{path}: is a directory; name a capture file in it")
        if not stat.S_ISREG(found.st_mode):
            raise CaptureError(f"{path}: is not a regular file; a capture must be one")
        if found.st_size > CAPTURE_BYTES_MAX:
            raise CaptureError(
                f"{path}: has {found.st_size >> 20} MiB, the limit is {CAPTURE_BYTES_MAX >> 20} "
                f"MiB; split it with editcap -c 1000000 {path} PART"
            )
        with open(path, "rb") as file:
            return file.read(found.st_size)
    except ValueError as error:  # a zero byte in the name
        raise CaptureError(f"{path!r}: is not a file name") from error
    except MemoryError as error:
        raise CaptureError(
            f"{path}: does not fit into memory; split it with editcap -c 1000000 {path} PART"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise CaptureError(
                f"{path}: there is no such capture file (looked from {_folder()})"
            ) from error
        raise CaptureError(f"{path}: cannot be read: {reason_of(error)}") from error


def _read_open(name: str, descriptor: int) -> bytes:
    """What is left in an open file, pipe or socket, up to its end."""
    pieces: list[bytes] = []
    size = 0
    try:
        if os.isatty(descriptor):
            raise CaptureError(f"{name}: is a terminal; give it a capture, as in: < FILE")
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise CaptureError(f"{name}: is a directory; name a capture file in it")
        while piece := os.read(descriptor, _PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            begin = b"".join(pieces)[:4] if len(pieces) < 4 else None  # may come byte by byte
            if begin is not None and len(begin) == 4 and not is_capture(begin):
                break  # the rest may be long, and changes nothing
            if size > CAPTURE_BYTES_MAX:
                raise CaptureError(
                    f"{name}: has more than {CAPTURE_BYTES_MAX >> 20} MiB, the limit; split the "
                    f"capture with editcap -c 1000000"
                )
        return b"".join(pieces)
    except MemoryError as error:
        raise CaptureError(
            f"{name}: does not fit into memory; split the capture with editcap -c 1000000"
        ) from error
    except OSError as error:
        raise CaptureError(f"{name}: cannot be read: {reason_of(error)}") from error


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "a folder that no longer exists"


def _what_it_is_instead(path: str, data: bytes) -> str:
    if not data:
        return f"{path}: is empty; a capture has at least a header"
    for start, what in _NOT_CAPTURES.items():
        if data.startswith(start):
            return f"{path}: {what.format(path=path)}"
    if len(data) < 4 and any(magic.startswith(data) for magic in (*pcap.MAGICS, pcapng.MAGIC)):
        return f"{path}: ends after {len(data)} bytes, in the middle of its header; copy it again"
    return f"{path}: is not a capture: it does not begin like pcap or pcapng"


FILE_HEADER_BYTES = pcap.FILE_HEADER_BYTES


class CaptureWriter:
    """Writes frames to a pcap file with time stamps in nanoseconds. A context manager.

    descriptor: an open file to write to instead, which may be a pipe; `path` is for messages
    then. The writer closes it.

    When the disk is full, the file keeps as many whole frames as fit.

    Raises CaptureError when the file cannot be created, EnvironmentLacks when a write fails.
    """

    def __init__(self, path: str | os.PathLike[str], descriptor: int | None = None) -> None:
        self.path = os.fspath(path)
        self.frames = 0  # given to `write`; after an error, those that are in the file
        self._ends: list[int] = []  # of the header and of each frame in the buffer
        self._buffer = bytearray()
        self._failed: EnvironmentLacks | None = None
        if descriptor is None:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                descriptor = os.open(self.path, flags, 0o666)
            except (OSError, ValueError) as error:
                reason = reason_of(error) if isinstance(error, OSError) else str(error)
                raise CaptureError(f"{self.path}: cannot be written: {reason}") from error
        self._fd = descriptor
        self._append(pcap.file_header())

    def write(self, frame: Bytes, nanoseconds: int | None = None) -> None:
        """Append a frame with the time `nanoseconds` since 1970; None: the current time."""
        view = memoryview(frame)
        when = time.time_ns() if nanoseconds is None else nanoseconds
        self.frames += 1
        self._append(pcap.packet_header(view.nbytes, when) + view)

    def _append(self, data: Bytes) -> None:
        self._buffer += data
        self._ends.append(len(self._buffer))
        if len(self._buffer) >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._failed is not None:
            return
        done = 0
        try:
            with memoryview(self._buffer) as left:
                while done < len(left):
                    done += os.write(self._fd, left[done:])
        except OSError as error:
            self._failed = self._stop(error, done)
            raise self._failed from error
        self._buffer.clear()
        self._ends.clear()

    def _stop(self, error: OSError, done: int) -> EnvironmentLacks:
        """Remove the part of a frame at the end of the file: `done` bytes of the buffer are in
        it."""
        whole = [end for end in self._ends if end <= done]
        self.frames -= min(len(self._ends) - len(whole), self.frames)
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            end = os.lseek(self._fd, 0, os.SEEK_CUR) - done + (whole[-1] if whole else 0)
            os.ftruncate(self._fd, end)
        remedy = "make room or record elsewhere"
        if error.errno == errno.EPIPE:
            remedy = "the program that reads it has ended"
        return EnvironmentLacks(
            f"{self.path}: recording stopped after {self.frames} frames: {error.strerror}; {remedy}"
        )

    def close(self) -> None:
        """Write the buffer and close the file; may be called again. Raises EnvironmentLacks when
        there is no space."""
        if self._fd < 0:
            return
        try:
            self._flush()
        finally:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_capture(
    path: str | os.PathLike[str], frames: Iterable[Bytes], times: Iterable[int] | None = None
) -> int:
    """Write `frames` to a pcap file; returns their number.

    `times` are nanoseconds since 1970, one per frame. Without them, frame n gets the time
    n microseconds.

    Raises CaptureError and EnvironmentLacks as CaptureWriter does.
    """
    with CaptureWriter(path) as writer:
        if times is None:
            for number, frame in enumerate(frames):
                writer.write(frame, number * 1000)
        else:
            for frame, nanoseconds in zip(frames, times, strict=True):
                writer.write(frame, nanoseconds)
    return writer.frames
