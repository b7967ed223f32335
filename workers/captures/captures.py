"""Capture files: what reads pcap and pcapng, and what writes pcap.

`ringline try` runs a plugin on captures; the wire of a simulated card replays and records them.
Reading is in reader.py, and available here too.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from types import TracebackType

from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.text import counted, printable
from ringline.workers.captures import pcap, pcapng
from ringline.workers.captures.byte_source import descriptor_named
from ringline.workers.captures.capture_table import Capture, CaptureError, Frames, Tally
from ringline.workers.captures.decompression import format_of
from ringline.workers.captures.files.local import wait_for
from ringline.workers.captures.packet import Frame
from ringline.workers.captures.reader import CaptureReader, read_capture

__all__ = [
    "Capture",
    "CaptureError",
    "CaptureReader",
    "CaptureWriter",
    "Frame",
    "Frames",
    "Tally",
    "descriptor_named",
    "read_capture",
    "write_capture",
]

Bytes = bytes | bytearray | memoryview

_WRITE_BYTES = 1 << 16  # are collected before they are written


def is_capture(begin: bytes) -> bool:
    """Whether a file with these first bytes is a capture, complete or not, or is compressed like
    one; give at least 6 bytes, if it has as many."""
    known = begin[:4] in pcap.MAGICS or begin[:4] == pcapng.MAGIC
    return known or format_of(begin) is not None


def is_our_capture(begin: bytes) -> bool:
    """Whether a file that begins with these FILE_HEADER_BYTES was written by ringline."""
    return pcap.is_ours(begin)


FILE_HEADER_BYTES = pcap.FILE_HEADER_BYTES


class CaptureWriter:
    """Writes frames to a pcap file with time stamps in nanoseconds. A context manager.

    descriptor: an open file to write to instead, which may be a pipe; `path` is for messages
    then. The writer closes it.

    When the disk is full, the file keeps as many whole frames as fit.

    Raises CaptureError when the file cannot be created, EnvironmentLacks when a write fails.
    """

    def __init__(self, path: str | os.PathLike[str], descriptor: int | None = None) -> None:
        file = os.fspath(path)
        self.path = printable(file)  # for messages
        self.frames = 0  # given to `write`; after an error, those that are in the file
        self._ends: list[int] = []  # of the header and of each frame in the buffer
        self._buffer = bytearray()
        self._failed: EnvironmentLacks | None = None
        if descriptor is None:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                descriptor = os.open(file, flags, 0o666)
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
                    try:
                        done += os.write(self._fd, left[done:])
                    except BlockingIOError:  # whoever gave the pipe writes it in that way
                        wait_for(self._fd, writing=True)
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
            f"{self.path}: recording stopped after {counted(self.frames, 'frame')}: "
            f"{error.strerror}; {remedy}"
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
