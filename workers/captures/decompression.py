"""Decompresses a file piece by piece: gzip, bzip2, xz, zstd, lz4.

The first bytes tell the format, never the name. All five formats allow several compressed parts
("members", "streams" or "frames") behind each other; their contents are one. Whatever else
follows is an error. Memory is bounded, also for a file that was made to need much: a piece has at
most PIECE_BYTES, and a format that needs a dictionary may take MEMORY_BYTES for it.

Sources: RFC 1952 (gzip), RFC 8878 (zstd), the file format of xz, the LZ4 frame format, and the
manual pages of the programs for what may follow (zeros after gzip and xz).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ringline.workers.captures.capture_table import CaptureError, CutShort, Tally

PIECE_BYTES = 1 << 16
MEMORY_BYTES = 128 << 20  # as much as the programs xz -9 and zstd -19 need, and more


class Decompressor(Protocol):
    """One compressed part; the decompressors of the standard library have these names.

    eof: the part is complete. `unused_data` are the bytes behind it.
    needs_input: nothing more comes out before more goes in.
    """

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """zlib's own decompressor hands back input that it did not use; this one keeps it."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)  # a header of gzip, the largest window
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = PIECE_BYTES) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(out) < max_length
        return out


def _xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)


def _zstd() -> Decompressor:
    from backports.zstd import DecompressionParameter, ZstdDecompressor

    limit = MEMORY_BYTES.bit_length() - 1
    made: Decompressor = ZstdDecompressor(options={DecompressionParameter.window_log_max: limit})
    return made


def _lz4() -> Decompressor:
    from lz4.frame import LZ4FrameDecompressor

    made: Decompressor = LZ4FrameDecompressor()
    return made


@dataclass(frozen=True)
class Format:
    """A compression.

    magics: the first bytes of a part.
    make: makes a decompressor; raises ImportError when its package is not installed.
    tool: the program that decompresses a file.
    padded: zeros may follow a part.
    """

    name: str
    magics: tuple[bytes, ...]
    make: Callable[[], Decompressor]
    tool: str
    padded: bool = False


# Frames that hold no content, which zstd and lz4 programs write and skip (RFC 8878, 3.1.2).
_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))

FORMATS = (
    Format("gzip", (b"\x1f\x8b",), _Gzip, "gunzip", padded=True),
    Format("bzip2", (b"BZh",), bz2.BZ2Decompressor, "bunzip2"),
    Format("xz", (b"\xfd7zXZ\0",), _xz, "unxz", padded=True),
    Format("lz4", (b"\x04\x22\x4d\x18",), _lz4, "unlz4"),
    # Last: it takes the frames without content, with which files of pzstd begin.
    Format("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), _zstd, "unzstd"),
)
MAGIC_BYTES = 6  # of the longest magic


def format_of(begin: bytes) -> Format | None:
    """The compression of a file with these first bytes, MAGIC_BYTES if it has as many."""
    for known in FORMATS:
        if begin.startswith(known.magics):
            return known
    return None


def decompressed(tally: Tally, known: Format, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of a file of the format `known`, in pieces of at most PIECE_BYTES.

    Raises CaptureError when the data is damaged, needs too much memory or has something else
    behind it, or when a package is missing; CutShort when the file ends too early.
    """
    return _Reader(tally, known, pieces)


class _Reader(Iterator[bytes]):
    """The content; from where the file ends too early on, each call raises CutShort."""

    def __init__(self, tally: Tally, known: Format, pieces: Iterator[bytes]) -> None:
        self._tally = tally
        self._format = known
        self._pieces = pieces
        self._taken = 0  # compressed bytes taken from `pieces`
        self._followers = known.magics
        if known.name == "lz4":
            self._followers += _SKIPPABLE
        self._is_cut = False
        self._content = self._read()
        self._make()  # at once: a missing package is found before the first piece is asked for

    def _make(self) -> Decompressor:
        try:
            return self._format.make()
        except ImportError as error:
            path, name = self._tally.path, self._format.name
            raise CaptureError(
                f"{path}: is compressed with {name}, for which a package is missing: install "
                f"ringline with its extra captures (pip install 'ringline[captures]'), or "
                f"decompress the file first: {self._format.tool} {path}"
            ) from error

    def _more(self) -> bytes:
        piece = next(self._pieces, b"")
        self._taken += len(piece)
        return piece

    def __next__(self) -> bytes:
        for piece in self._content:
            return piece
        if self._is_cut:
            raise self._ends_early()
        raise StopIteration

    def _read(self) -> Iterator[bytes]:
        data = self._more()
        while data:
            part = self._make()
            while not part.eof:
                if part.needs_input and not data:
                    data = self._more()
                    if not data:
                        self._is_cut = True
                        return
                out = self._out_of(part, data)
                data = b""
                if out:
                    yield out
            data = self._next_part(part.unused_data or b"")  # lz4 says None

    def _out_of(self, part: Decompressor, data: bytes) -> bytes:
        try:
            return part.decompress(data, PIECE_BYTES)
        except MemoryError:
            raise
        except Exception as error:  # each format has exceptions of its own
            path, name = self._tally.path, self._format.name
            if "memory" in str(error).lower():
                raise CaptureError(
                    f"{path}: needs more than {MEMORY_BYTES >> 20} MiB of memory to be "
                    f"decompressed; decompress it first: {self._format.tool} {path}"
                ) from error
            raise CaptureError(
                f"{path}: is damaged: its {name} data cannot be decompressed any more before byte "
                f"{self._taken} ({error}), after {self._tally.packets} good packets; copy it again"
            ) from error

    def _next_part(self, data: bytes) -> bytes:
        """The bytes from the next part on, b"" at the end of the file. It may be cut."""
        wanted = max(map(len, self._followers))
        while True:
            if self._format.padded:
                data = data.lstrip(b"\0")
            piece = self._more() if len(data) < wanted else b""
            if not piece:
                break
            data += piece
        if not data or data.startswith(self._followers):
            return data
        if any(magic.startswith(data) for magic in self._followers):
            self._is_cut = True
            return b""
        raise CaptureError(
            f"{self._tally.path}: something that is not {self._format.name} follows its compressed "
            f"data, at byte {self._taken - len(data)}; remove it, or copy the file again"
        )

    def _ends_early(self) -> CutShort:
        tally = self._tally
        what = f"its {self._format.name} data ends too early, after {self._taken} bytes"
        good = f"after {tally.packets} good packets"
        return CutShort(f"{tally.path}: {what}, {good}. {tally.way_out(cut=True)}", what)
