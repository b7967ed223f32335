"""Capture files: read pcap and pcapng, write pcap.

`ringline try` runs a plugin on a capture; the wire of a simulated card replays and records
captures. For any content of a file, reading it gives a Capture, or a CaptureError that says
what is wrong and where. Memory and time are proportional to the size of the file: every
length in it is compared with the bytes that exist before it is used.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from types import TracebackType

from ringline.shm.errors import EnvironmentLacks
from ringline.workers.captures import pcap, pcapng
from ringline.workers.captures.capture_table import Capture, CaptureError, Frames

__all__ = ["Capture", "CaptureError", "CaptureWriter", "Frames", "read_capture", "write_capture"]

Bytes = bytes | bytearray | memoryview

# The whole file is kept in memory, so its size has a limit.
CAPTURE_BYTES_MAX = 4 << 30

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


def read_capture(path: str | os.PathLike[str]) -> Capture:
    """Read the pcap or pcapng file at `path`; its first bytes tell the format.

    Raises CaptureError when the file does not exist, cannot be read, or is not a complete
    capture of Ethernet frames. Truncated frames (see `Capture.remark`) and a capture without
    packets are not errors.
    """
    name = os.fspath(path)
    data = _read(name)
    capture = Capture(name, data)
    if data[:4] in pcap.MAGICS:
        pcap.read_pcap(capture)
    elif data[:4] == pcapng.MAGIC:
        pcapng.read_pcapng(capture)
    else:
        raise CaptureError(_what_it_is_instead(name, data))
    return capture


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
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from error


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

    Raises CaptureError when the file cannot be created, EnvironmentLacks when a write fails.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.frames = 0
        try:
            self._file = open(self.path, "wb", buffering=1 << 16)  # noqa: SIM115 - closed in close
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CaptureError(f"{self.path}: cannot be written: {reason}") from error
        self._guarded(pcap.file_header())

    def write(self, frame: Bytes, nanoseconds: int | None = None) -> None:
        """Append a frame with the time `nanoseconds` since 1970; None: the current time."""
        view = memoryview(frame)
        when = time.time_ns() if nanoseconds is None else nanoseconds
        self._guarded(pcap.packet_header(view.nbytes, when))
        self._guarded(view)
        self.frames += 1

    def _guarded(self, data: Bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(
            f"{self.path}: recording stopped after {self.frames} frames: {error.strerror}; "
            f"make room or record elsewhere"
        )

    def close(self) -> None:
        """Write the buffer and close the file. Raises EnvironmentLacks when there is no space."""
        try:
            self._file.close()
        except OSError as error:
            raise self._full(error) from error

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
