"""The captures that URLs name: files, folders, patterns, and lists behind a URL."""

from __future__ import annotations

import json
import posixpath
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import UsageError, reason_of
from ringline.shm.text import printable
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.captures import is_capture
from ringline.workers.captures.files import asking, remote
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.files.names import schemes, shown

AT_ONCE = 16  # URLs that are asked about at the same time

_FORM = '{"s3": {"endpoint_url": "https://…"}}'
_T = TypeVar("_T")
# An address of IPv6, whose brackets are no pattern.
_IPV6 = re.compile(r"(?<=://)\[[0-9A-Fa-f:.]+\]")


def access_of(options: Mapping[str, Any] | None) -> Access:
    """How URLs are opened with these options for file systems, by scheme. Raises UsageError."""
    options = options if options is not None else {}
    for given in options.values():
        if not isinstance(given, Mapping):
            raise UsageError(
                f"the storage options must be an object for each scheme of URLs, as in {_FORM}"
            )
    try:
        json.dumps(options)
    except (TypeError, ValueError):
        raise UsageError("the storage options must be values of JSON: texts, numbers …") from None
    return Access(options, deadlines.URL_ANSWER)


def options_in(path: str) -> Mapping[str, Any]:
    """The storage options in a file. Raises UsageError, without a word of the content: it may have
    secrets."""
    try:
        with open(path, encoding="utf-8") as file:
            options = json.load(file)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is not JSON"
        raise UsageError(f"{printable(path)}: cannot be read: {reason}") from None
    if not isinstance(options, dict):
        raise UsageError(f"{printable(path)}: has no object: write {_FORM}")
    return options


def all_of(items: Sequence[str], function: Callable[[str], _T]) -> list[_T]:
    """The answers of `function` for each URL; several are asked for at a time. An interruption
    does not wait for the others. Raises what `function` raises."""
    answers: dict[int, _T] = {}
    left = deque(enumerate(items))
    done: queue.SimpleQueue[tuple[int, _T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                number, item = left.popleft()
            except IndexError:
                return
            try:
                done.put((number, function(item), None))
            except BaseException as error:
                done.put((number, None, error))

    for _ in range(min(AT_ONCE, len(items))):
        threading.Thread(target=work, name="urls", daemon=True).start()
    try:
        for _ in items:
            number, answer, error = done.get()
            if error is not None:
                raise error
            answers[number] = cast(_T, answer)
    finally:
        left.clear()
    return [answers[number] for number in range(len(items))]


def files_of(urls: Sequence[str], access: Access) -> list[list[str]]:
    """The files that each URL names: it is one, a folder (all captures in it and in its folders),
    or a pattern. Raises UsageError."""

    def files(url: str) -> list[str]:
        return list(_files_of(url, access))

    try:
        return all_of(urls, files)
    except CaptureError as error:
        raise UsageError(str(error)) from error


def _files_of(url: str, access: Access) -> Iterable[str]:
    is_http = schemes(url)[0] in ("http", "https")
    patterns = "*[" if is_http else "*?["
    system, path = asking.ask(url, access, lambda: asking.file_system(url, access))
    whole = replace(access, seconds=deadlines.URL_LISTING)
    if any(sign in _IPV6.sub("", path) for sign in patterns):
        return _matching(url, system, path, access, whole)
    # The page of a folder is the only one that a server of HTTP tells from a file.
    if is_http and not url.endswith("/"):
        return [url]
    try:
        is_folder = asking.ask(url, access, lambda: _is_folder(system, path, is_http=is_http))
    except CaptureError as error:
        if isinstance(error.__cause__, PermissionError):
            return [url]  # it costs this capture only: to read it tells
        raise
    if is_folder:
        return _in_folder(url, system, path, access, whole)
    return [url]


def _is_folder(system: Any, path: str, *, is_http: bool) -> bool:
    return is_http or bool(system.info(path)["type"] == "directory")


def _matching(url: str, system: Any, path: str, access: Access, whole: Access) -> Iterator[str]:
    found = asking.ask(url, whole, lambda: system.glob(path, detail=True, **_loudly(url)))
    if not found:
        _check_folder(url, system, path, access)
        raise UsageError(f"{printable(shown(url))}: no file has such a name")
    for name in sorted(found):
        inner = _named(url, system, name)
        if found[name]["type"] == "directory":
            yield from _in_folder(inner, system, name, access, whole)
        else:
            yield inner


def _check_folder(url: str, system: Any, path: str, access: Access) -> None:
    """Raise the error that a search for a pattern does not tell: it finds nothing instead."""
    folder = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
    try:
        asking.ask(url, access, lambda: system.ls(folder))
    except CaptureError as error:
        if not isinstance(error.__cause__, FileNotFoundError) or "no such bucket" in str(error):
            raise


def _loudly(url: str) -> dict[str, Any]:
    """Arguments with which a search of HTTP passes over no folder that it cannot read."""
    return {"on_error": "raise"} if schemes(url)[0] in ("http", "https") else {}


def _in_folder(url: str, system: Any, path: str, access: Access, whole: Access) -> list[str]:
    """The captures in a folder, by their first bytes, in the order of their names."""
    names = asking.ask(url, whole, lambda: sorted(system.find(path, **_loudly(url))))
    urls = [_named(url, system, name) for name in names]
    looks = all_of(urls, lambda it: _looks_like_capture(it, access))
    found = [it for it, is_one in zip(urls, looks, strict=True) if is_one]
    if not found:
        raise UsageError(f"{printable(shown(url))}: there is no capture in this folder")
    return found


def _looks_like_capture(url: str, access: Access) -> bool:
    try:
        file = remote.RemoteFile(Tally(url), access)
    except CaptureError:
        return True  # to read it will tell why it cannot be read
    try:
        return is_capture(file.read()[:8])
    except CaptureError:
        return True
    finally:
        file.close()


def _named(url: str, system: Any, path: str) -> str:
    """The URL of another file in the file system of `url`."""
    _, chain, inner = url.partition("::")
    name = system.unstrip_protocol(path)
    scheme, mark, rest = name.partition("://")
    if scheme != schemes(url)[0]:  # the same system has several schemes
        name = f"{schemes(url)[0]}{mark}{rest}"
    return f"{name}{chain}{inner}"


def list_at(url: str, access: Access) -> str:
    """The text of a list at a URL. Raises UsageError."""
    try:
        return remote.content_of(url, access).decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"{printable(shown(url))}: the list cannot be read: it is not UTF-8"
        ) from None
    except CaptureError as error:
        raise UsageError(str(error)) from error


def beside(url: str, name: str) -> str:
    """The URL of a file that a list at `url` names. Raises UsageError."""
    if name.startswith("/"):
        raise UsageError(
            f"{printable(name)}: a list behind a URL names URLs, or files beside itself"
        )
    return posixpath.join(url.rpartition("/")[0], name)


def carried(url: str, access: Access) -> tuple[bytes, ...]:
    """What must travel with the tasks of a capture: the whole of one in the memory of this
    process."""
    return (remote.content_of(url, access),) if schemes(url)[-1] == "memory" else ()
