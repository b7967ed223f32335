"""The captures that an analysis is asked for: files, folders, patterns, and lists in a file."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ringline.shm.errors import UsageError, reason_of
from ringline.shm.text import printable
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.captures import CaptureReader, is_capture

_PATTERN = "*?["


@dataclass(frozen=True)
class Source:
    """A capture that can be read.

    path: of the file, as it was given.
    identity: device, inode, bytes and time of the last change (ns).
    first: the time of its first frame that has one (ns since 1970); 0 without one.
    is_plain: it is not compressed, so that parts of it can be read alone.
    """

    path: str
    identity: tuple[int, int, int, int]
    first: int
    is_plain: bool

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.identity[2]


def paths_of(given: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files that the arguments name, each file once. Raises UsageError.

    An argument is a file, a folder (all captures in it and in its folders), a pattern such as
    `day*.pcap`, or `@FILE`, a list with one argument in each line.
    """
    paths: dict[tuple[int, int], str] = {}
    for text in given:
        for path in _named(os.fspath(text), ()):
            try:
                found = os.stat(path)
                paths.setdefault((found.st_dev, found.st_ino), path)
            except (OSError, ValueError) as error:
                reason = reason_of(error) if isinstance(error, OSError) else str(error)
                raise UsageError(f"{printable(path)}: cannot be read: {reason}") from None
    if not paths:
        raise UsageError("name at least one capture, folder or list of captures")
    return list(paths.values())


def _named(text: str, lists: Sequence[str]) -> Iterator[str]:
    """The files of one argument; `lists` are those that it is in."""
    if not text:
        raise UsageError("the name of a capture is empty; write the path of a file")
    if text == "-":
        raise UsageError(
            "an analysis reads its captures more than once, so none can come from standard input: "
            "write it to a file first"
        )
    if "://" in text and not os.path.exists(text):
        raise UsageError(f"{printable(text)}: an analysis reads files, not URLs: download it first")
    if text.startswith("@") and not os.path.exists(text):
        yield from _listed(text[1:], lists)
    elif os.path.isdir(text):
        yield from _in_folder(text)
    elif os.path.exists(text):
        yield text
    elif any(sign in text for sign in _PATTERN):
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            raise UsageError(f"{printable(text)}: no file has such a name")
        for path in found:
            yield from _in_folder(path) if os.path.isdir(path) else [path]
    else:
        where = f" (looked from {printable(os.getcwd())})" if not os.path.isabs(text) else ""
        raise UsageError(f"{printable(text)}: there is no such capture, folder or list{where}")


def _listed(path: str, lists: Sequence[str]) -> Iterator[str]:
    """The files of the list at `path`, relative to its folder."""
    if path in lists:
        raise UsageError(f"{printable(path)}: the list names itself")
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{printable(path)}: the list cannot be read: {reason}") from None
    folder = os.path.dirname(path)
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        inner = text.removeprefix("@")
        text = text[: len(text) - len(inner)] + os.path.join(folder, os.path.expanduser(inner))
        try:
            yield from _named(text, (*lists, path))
        except UsageError as error:
            raise UsageError(f"{printable(path)}, line {number}: {error}") from None


def _in_folder(folder: str) -> Iterator[str]:
    """The captures in a folder, by their first bytes, in the order of their names."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{printable(str(error.filename))}: cannot be read: {reason_of(error)}")

    found = False
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            if _looks_like_capture(path):
                found = True
                yield path
    if not found:
        raise UsageError(f"{printable(folder)}: there is no capture in this folder")


def _looks_like_capture(path: str) -> bool:
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return is_capture(file.read(8))
    except OSError:
        return True  # to read it will tell why it cannot be read


def looked_at(paths: Iterable[str], *, to_cut: bool) -> tuple[list[Source], dict[str, str]]:
    """The captures in the order of their first frames, and a sentence for each file that cannot be
    read, by path."""
    sources: list[Source] = []
    broken: dict[str, str] = {}
    for path in paths:
        tally = Tally(path, to_cut=to_cut)
        try:
            with CaptureReader(tally, any_link=True) as reader:
                source = reader.source
                identity, is_plain = source.identity, not source.is_compressed
                first = 0
                with contextlib.suppress(CaptureError):  # its task tells the same
                    first = next((frame.nanoseconds for frame in reader if frame.nanoseconds), 0)
                sources.append(Source(path, identity, first, is_plain))
        except CaptureError as error:
            broken[path] = str(error)
    sources.sort(key=lambda source: (source.first, source.path))
    return sources, broken
