"""A capture behind a URL, through fsspec: blocks are asked for by their range, and one is read
ahead.

Whatever its libraries do, an answer takes at most `Access.seconds`: a thread waits for it, and is
left alone when it takes longer. What fails for a moment is asked for again, from where it stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.files import refusals
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.files.asking import PAUSE, TRIES, Call, ask, file_system, refused
from ringline.workers.captures.files.local import PIECE_BYTES
from ringline.workers.captures.files.names import schemes

FIRST_BYTES = 1 << 16  # of the first block; the next ones are larger,
BLOCK_BYTES = 8 << 20  # up to this
_FAST, _SLOW = 1.0, 5.0  # seconds for a block: the next one is larger, or smaller

# What tells two versions of a file apart, in the info of the file systems of fsspec.
_TOKENS = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "VersionId", "generation", "ino")
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modified")


class _Opened(NamedTuple):
    """A file of fsspec.

    streams: it can only be read from its begin to its end.
    divides: to read a part of it costs no more than the part.
    turn: held from a seek to the end of its read. A block that was read ahead and is not needed any
        more may still be under way.
    """

    system: Any
    path: str
    file: Any
    size: int
    identity: tuple[int | str, int | str, int, int | str]
    streams: bool
    divides: bool
    turn: threading.Lock


def _open(url: str, access: Access, *, streams: bool) -> _Opened:
    system, path = file_system(url, access)
    system.invalidate_cache(path)
    more: dict[str, Any] = {"cache_type": "none"}
    info = None
    if _is_http(url):
        info = system.info(path)
        streams = streams or not info["size"] or not info.get("partial", True)
        more |= {"block_size": 0} if streams else {"size": info["size"]}
    file = system.open(path, "rb", **more)
    if info is None:
        info = getattr(file, "details", None) or system.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError
    size = info.get("size") or 0
    streams = streams or not size or not file.seekable()
    from fsspec.spec import AbstractBufferedFile

    divides = not streams and (isinstance(file, AbstractBufferedFile) or schemes(url) == ["memory"])
    return _Opened(
        system, path, file, size, _identity(url, info), streams, divides, threading.Lock()
    )


def _is_http(url: str) -> bool:
    return schemes(url)[0] in ("http", "https")


def _identity(url: str, info: dict[str, Any]) -> tuple[int | str, int | str, int, int | str]:
    """Scheme, checksum or version, bytes, and time of the last change of a file."""
    if schemes(url) == ["memory"]:  # each process has one of its own: see `keep`
        return "memory", "", info["size"], ""
    tokens = [f"{name} {info[name]}" for name in _TOKENS if info.get(name)]
    times = [str(info[name]) for name in _TIMES if info.get(name)]
    return schemes(url)[0], "; ".join(tokens), info.get("size") or 0, "; ".join(times)


class RemoteFile:
    """The file at the URL `tally.file`.

    size: in bytes; 0: unknown.
    descriptor: None; no file of this process.
    can_seek: `seek` works.

    Raises CaptureError when it cannot be opened or read.
    """

    descriptor: int | None = None

    def __init__(self, tally: Tally, access: Access) -> None:
        self._url = tally.file
        self._tally = tally
        self._access = access
        self._at = 0  # where the next piece begins
        self._base, self._block = 0, b""
        self._next_bytes = FIRST_BYTES
        self._ahead: tuple[int, Call] | None = None
        self._stop: int | None = None
        self._failed = False
        self._streamed = 0  # where a stream is
        self._opened = ask(self._url, access, lambda: _open(self._url, access, streams=False))
        self.size = self._opened.size

    @property
    def can_seek(self) -> bool:
        """Some servers of HTTP send a file only as a whole: this asks for its last byte."""
        opened, is_known = self._opened, self._base > 0 or self.size <= len(self._block)
        if opened.divides and _is_http(self._url) and not is_known:
            try:
                self._fetched(self.size - 1, self.size)
            except CaptureError:
                raise
            except Exception:
                return False
        return opened.divides and not self._opened.streams

    @property
    def identity(self) -> tuple[int | str, int | str, int, int | str]:
        """Scheme, checksum or version, bytes, time of the last change, when it was opened."""
        return self._opened.identity

    def has_changed(self) -> bool:
        """Whether it is not any more what it was when it was opened."""
        opened, url = self._opened, self._url
        if self._failed:
            return False

        def info() -> tuple[int | str, ...]:
            opened.system.invalidate_cache(opened.path)
            return _identity(url, opened.system.info(opened.path))

        try:
            return ask(url, self._access, info) != opened.identity
        except CaptureError:
            self._failed = True
            raise

    def expect(self, stop: int | None) -> None:
        """Nothing is read ahead from byte `stop` on; None: all may be needed."""
        self._stop = stop

    def seek(self, offset: int) -> None:
        """Go on at byte `offset`."""
        self._at = offset

    def read(self) -> bytes:
        """The next piece; b"" at the end."""
        at = self._at
        if self._opened.streams or not self._base <= at < self._base + len(self._block):
            if self.size and at >= self.size:
                return b""
            self._base, self._block = at, self._from(at)
        start = at - self._base
        piece = self._block[start : start + PIECE_BYTES]
        self._at += len(piece)
        return piece

    def _from(self, at: int) -> bytes:
        """The block at byte `at`, which is asked for again when the connection breaks."""
        tries = 0
        while True:
            try:
                return self._streamed_from(at) if self._opened.streams else self._fetched_from(at)
            except CaptureError:
                self._failed = True
                raise
            except Exception as error:
                if isinstance(error, ValueError) and self._may_stream():
                    self._reopen(streams=True)  # it sends the whole file, whatever is asked for
                    continue
                tries += 1
                if refusals.is_replaced(error):
                    self._failed = True
                    raise CaptureError(self._tally.changed()) from error
                if tries == TRIES or refusals.is_final(error):
                    self._failed = True
                    raise refused(self._url, self._access, error, tries, at) from error
                time.sleep(PAUSE * 2**tries)
                self._reopen(streams=self._opened.streams)

    def _may_stream(self) -> bool:
        return _is_http(self._url) and not self._opened.streams

    def _reopen(self, *, streams: bool) -> None:
        before = self._opened
        self._ahead = None
        self._streamed = 0
        self._opened = ask(
            self._url, self._access, lambda: _open(self._url, self._access, streams=streams)
        )
        _close(before)
        if self._opened.identity != before.identity:
            self._failed = True
            raise CaptureError(self._tally.changed())

    def _fetched_from(self, at: int) -> bytes:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == at:
            data, seconds = ahead[1].result(self._access)
        else:
            data, seconds = self._fetched(at, self._end_of(at))
        is_first = self._next_bytes == FIRST_BYTES
        if seconds < _FAST:
            self._next_bytes = min(8 * self._next_bytes, BLOCK_BYTES)
        elif seconds > _SLOW:
            self._next_bytes = max(self._next_bytes // 4, 2 * FIRST_BYTES)
        then = at + len(data)
        if not is_first and then < min(self.size, self._stop or self.size):
            self._ahead = then, Call(self._fetch(then, self._end_of(then)))
        return bytes(data)

    def _end_of(self, at: int) -> int:
        """Where a block that begins at `at` ends."""
        count = self._next_bytes
        if self._stop is not None:
            count = min(count, max(self._stop - at, 0) + FIRST_BYTES)
        return min(at + count, self.size)

    def _fetched(self, start: int, end: int) -> tuple[bytes, float]:
        answer: tuple[bytes, float] = Call(self._fetch(start, end)).result(self._access)
        return answer

    def _fetch(self, start: int, end: int) -> Callable[[], tuple[bytes, float]]:
        file, turn = self._opened.file, self._opened.turn

        def fetch() -> tuple[bytes, float]:
            began = time.monotonic()
            with turn:
                file.seek(start)
                data = file.read(end - start)
            if len(data) != end - start:
                raise ConnectionError(f"{len(data)} of {end - start} bytes came")
            return data, time.monotonic() - began

        return fetch

    def _streamed_from(self, at: int) -> bytes:
        """The bytes of a stream at `at`: those before it are read again after a break."""
        while True:
            size = min(at - self._streamed, BLOCK_BYTES) or PIECE_BYTES
            piece = bytes(Call(partial(self._opened.file.read, size)).result(self._access))
            before, self._streamed = self._streamed, self._streamed + len(piece)
            if before >= at or not piece:
                return piece

    def close(self) -> None:
        """Close the file; may be called again."""
        _close(self._opened)


def _close(opened: _Opened) -> None:
    with contextlib.suppress(Exception):
        opened.file.close()


def keep(url: str, content: bytes, access: Access) -> None:
    """Put the content of a file of another process into the memory of this one, where
    `memory://` finds it."""
    system, path = file_system(url, access)
    system.pipe_file(path, content)


def content_of(url: str, access: Access) -> bytes:
    """The whole of a small file, such as a list, or one in the memory of this process."""
    system, path = ask(url, access, lambda: file_system(url, access))
    return bytes(ask(url, access, lambda: system.cat_file(path)))
