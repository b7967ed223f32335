"""The captures that an analysis is asked for: files, folders, patterns, and lists in a file.

Each of them may be a URL, see urls.py.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ringline.pipeline.analysis import urls
from ringline.shm.errors import UsageError, reason_of
from ringline.shm.text import printable
from ringline.workers.captures.byte_source import descriptor_named
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.captures import CaptureReader, is_capture
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.files.names import is_url, local_path, shown

_PATTERN = "*?["
_LINE_END = re.compile(r"\r\n|\r|\n")  # a name may have other characters that end a line


@dataclass(frozen=True)
class Source:
    """A capture that can be read.

    path: of the file, as it was given; or its URL.
    identity: device, inode, bytes and time of the last change (ns); of a URL its scheme, checksum
        or version, bytes, time of the last change.
    first: the time of its first frame that has one (ns since 1970); 0 without one.
    is_plain: it is not compressed, and parts of it can be read alone.
    access: of a URL: how it is opened.
    content: of a URL `memory://`: the file, which no other process could read, as one part.
    """

    path: str
    identity: tuple[int | str, int | str, int, int | str]
    first: int
    is_plain: bool
    access: Access | None = None
    content: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """Its path for messages and reports."""
        return printable(shown(self.path))

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.identity[2]


Given = str | os.PathLike[str]


def paths_of(given: Given | Sequence[Given], access: Access | None = None) -> list[str]:
    """The files that the arguments name, each file once. Raises UsageError.

    There is a list of arguments, or a single one. An argument is a file, a folder (all captures in
    it and in its folders), a pattern such as `day*.pcap`, or `@FILE`, a list with one argument in
    each line. Each may be a URL. Of a folder and a pattern, a link whose file cannot be reached is
    one too: `looked_at` tells why.
    """
    access = access or urls.access_of(None)
    listed = [given] if isinstance(given, (str, os.PathLike)) else given
    named = [name for text in listed for name in _named(os.fspath(text), (), access)]
    behind = list(dict.fromkeys(filter(is_url, named)))
    files = dict(zip(behind, urls.files_of(behind, access), strict=True))
    paths: dict[tuple[int, int] | str, str] = {}  # by device and inode
    for path in named:
        if is_url(path):
            paths.update({url: url for url in files[path]})
            continue
        try:
            found = os.stat(path)
            paths.setdefault((found.st_dev, found.st_ino), path)
        except (OSError, ValueError) as error:
            if _leads_nowhere(path):
                paths[path] = path
                continue
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            raise UsageError(f"{printable(path)}: cannot be read: {reason}") from None
    if not paths:
        raise UsageError("name at least one capture, folder or list of captures")
    return list(paths.values())


def _named(text: str, lists: Sequence[str], access: Access) -> Iterator[str]:
    """The files and URLs of one argument; `lists` are those that it is in."""
    if not text:
        raise UsageError("the name of a capture is empty; write the path of a file")
    if descriptor_named(text, 0) is not None:  # it is another one in the processes that read it
        what = "standard input" if text in ("-", "/dev/stdin") else printable(text)
        raise UsageError(
            f"an analysis reads its captures more than once, so none can come from {what}: name a "
            "file, or write it to one first"
        )
    is_there = os.path.lexists(text)
    if is_url(text) and is_there:
        text = os.path.join(".", text)
    elif is_url(text):
        local = local_path(text)
        if local is None:
            yield text
            return
        text = local
    if text.startswith("@") and not is_there:
        yield from _listed(text[1:], lists, access)
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


def _listed(path: str, lists: Sequence[str], access: Access) -> Iterator[str]:
    """The files of the list at `path`, which may be a URL, relative to its folder."""
    if path in lists:
        raise UsageError(f"{printable(shown(path))}: the list names itself")
    path = local_path(path) or path if is_url(path) else path
    whole = urls.list_at(path, access) if is_url(path) else _text(path)
    for number, line in enumerate(_LINE_END.split(whole.removeprefix("\ufeff")), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        inner = text.removeprefix("@")
        sign = text[: len(text) - len(inner)]
        try:
            if is_url(path):
                inner = inner if is_url(inner) else urls.beside(path, inner)
            elif not is_url(inner):
                inner = _beside(path, os.path.expanduser(inner))
            yield from _named(sign + inner, (*lists, path), access)
        except UsageError as error:
            raise UsageError(f"{printable(shown(path))}, line {number}: {error}") from None


def _beside(path: str, name: str) -> str:
    """The path of what the list at `path` names; if it is a pattern, its folder is none."""
    inner = os.path.join(os.path.dirname(path), name)
    if os.path.lexists(inner) or not any(sign in name for sign in _PATTERN):
        return inner
    return os.path.join(glob.escape(os.path.dirname(path)), name)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{printable(path)}: the list cannot be read: {reason}") from None


def _in_folder(folder: str) -> Iterator[str]:
    """The captures in a folder, by their first bytes, in the order of their names. Folders that
    are links come after the others, and each folder once, whatever links lead to it."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{printable(str(error.filename))}: cannot be read: {reason_of(error)}")

    found = False
    seen: set[tuple[int, int]] = set()
    left = deque([folder])  # it, and links in it
    while left:
        for place, folders, files in os.walk(left.popleft(), onerror=refuse):
            if _is_again(place, seen):
                folders.clear()
                continue
            folders.sort()
            paths = [os.path.join(place, name) for name in folders]
            left.extend(filter(os.path.islink, paths))
            for name in sorted(files):
                path = os.path.join(place, name)
                if looks_like_capture(path):
                    found = True
                    yield path
    if not found:
        raise UsageError(f"{printable(folder)}: there is no capture in this folder")


def _is_again(place: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was seen before; it is noted."""
    try:
        facts = os.stat(place)
    except OSError as error:
        raise UsageError(f"{printable(place)}: cannot be read: {reason_of(error)}") from None
    key = (facts.st_dev, facts.st_ino)
    is_again = key in seen
    seen.add(key)
    return is_again


def _leads_nowhere(path: str) -> bool:
    """Whether it is a link, and what it leads to is not there or cannot be reached."""
    return os.path.islink(path) and not os.path.exists(path)


def looks_like_capture(path: str) -> bool:
    """Whether the first bytes of the file are those of a capture; also when nobody can tell."""
    try:
        if not os.path.isfile(path):
            return _leads_nowhere(path)  # it may have been one
        with open(path, "rb") as file:
            return is_capture(file.read(8))
    except OSError:
        return True  # to read it will tell why it cannot be read


def looked_at(
    paths: Iterable[str], *, to_cut: bool, access: Access | None = None
) -> tuple[list[Source], dict[str, str]]:
    """The captures in the order of their first frames, and a sentence for each file that cannot be
    read, by path."""
    access = access or urls.access_of(None)
    paths = list(paths)
    behind = [path for path in paths if is_url(path)]
    answers = urls.all_of(behind, lambda url: _look(url, access, to_cut=to_cut))
    looks = dict(zip(behind, answers, strict=True))
    found: list[Source] = []
    broken: dict[str, str] = {}
    for path in paths:
        look = looks[path] if path in looks else _look(path, access, to_cut=to_cut)
        if isinstance(look, Source):
            found.append(look)
        else:
            broken[shown(path)] = str(look)
    found.sort(key=lambda source: (source.first, source.path))
    return found, broken


def _look(path: str, access: Access, *, to_cut: bool) -> Source | CaptureError:
    """The capture at `path`, or why it cannot be read."""
    own: Access | None = None
    content: tuple[bytes, ...] = ()
    try:
        if is_url(path):
            own = replace(access, options=access.options_for(path))
            content = urls.carried(path, own)
        with CaptureReader(Tally(path, to_cut=to_cut), any_link=True, access=own) as reader:
            source, first = reader.source, 0
            with contextlib.suppress(CaptureError):  # its task tells the same
                first = next((frame.nanoseconds for frame in reader if frame.nanoseconds), 0)
            return Source(path, source.identity, first, source.can_seek, own, content)
    except CaptureError as error:
        return error
