"""The file systems of fsspec, and questions to their servers, which have a deadline."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ringline.workers.captures.capture_table import CaptureError
from ringline.workers.captures.files import refusals
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.files.names import schemes, shown
from ringline.workers.captures.files.refusals import NoAnswer

TRIES = 3
PAUSE = 0.2  # seconds before something is asked for again; doubled each time
_LOOK = 0.1

_T = TypeVar("_T")


class Call:
    """Runs `function` in a thread, so that its end can be awaited with a deadline."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._answer: Any = None
        threading.Thread(target=self._run, name="url", daemon=True).start()

    def _run(self) -> None:
        try:
            self._answer = self._function()
        except BaseException as error:
            self._error = error
        self._ended.set()

    def result(self, access: Access) -> Any:
        """What the function returns or raises. Raises NoAnswer after `access.seconds`."""
        until = time.monotonic() + access.seconds
        while not self._ended.wait(_LOOK):
            access.waiting()
            if time.monotonic() > until:
                raise NoAnswer
        if self._error is not None:
            raise self._error
        return self._answer


def file_system(url: str, access: Access) -> tuple[Any, str]:
    """The file system of fsspec for `url`, and the path in it. Raises CaptureError when a package
    is missing, the scheme is unknown, or the options are wrong."""
    try:
        from fsspec import core
        from fsspec.registry import get_filesystem_class, known_implementations
    except ImportError as error:
        raise refusals.missing(url, error.name or "fsspec") from error
    for scheme in schemes(url):
        try:
            get_filesystem_class(scheme)
        except ImportError as error:
            known = known_implementations.get(scheme, {}).get("class", "")
            own = known.partition(".")[0]
            inner = getattr(error.__cause__, "name", None) or error.name or own
            package = inner if own == "fsspec" else own
            raise refusals.missing(url, package) from error
        except ValueError as error:
            raise CaptureError(
                f"{shown(url)}: fsspec knows no URLs {scheme}://; write s3://, gs://, https:// or "
                "another one that it knows, or the path of a file"
            ) from error
    options = access.options_for(url)
    for scheme in {"http", "https"} & set(schemes(url)):
        _bound_http(options.setdefault(scheme, {}), access)
    for scheme in {"s3", "s3a"} & set(schemes(url)):  # botocore would ask ten times, ever slower
        options.setdefault(scheme, {}).setdefault("config_kwargs", {"retries": {"max_attempts": 1}})
    if schemes(url) in (["http"], ["https"]):  # fsspec would divide an address of IPv6 at its ::
        own = get_filesystem_class(schemes(url)[0])
        return own(**options[schemes(url)[0]]), url
    found: tuple[Any, str] = core.url_to_fs(url, **options)
    return found


def _bound_http(options: dict[str, Any], access: Access) -> None:
    """aiohttp ends a request after five minutes, also one that streams; and servers may compress
    what they send, so that its ranges are others."""
    from aiohttp import ClientTimeout

    late = 2 * access.seconds  # nobody waits any more
    limits = ClientTimeout(total=None, sock_connect=late, sock_read=late)
    options["client_kwargs"] = {"timeout": limits} | options.get("client_kwargs", {})
    options["headers"] = {"Accept-Encoding": "identity"} | options.get("headers", {})


def _load(url: str, access: Access) -> None:
    """Import what reads `url`. A busy machine takes long for it, which is no fault of a server."""
    new = set(schemes(url)) - _loaded

    def load() -> None:
        from fsspec.registry import get_filesystem_class

        for scheme in new:
            get_filesystem_class(scheme)

    if new:
        with contextlib.suppress(ImportError, ValueError):  # `file_system` tells the same
            Call(load).result(replace(access, seconds=math.inf))
        _loaded.update(new)


_loaded: set[str] = set()  # schemes


def ask(url: str, access: Access, function: Callable[[], _T]) -> _T:
    """What `function` returns, which asks the server of `url`; it is called again when it fails
    for a moment. Raises CaptureError."""
    _load(url, access)
    for number in range(TRIES):
        try:
            answer: _T = Call(function).result(access)
            return answer
        except CaptureError:
            raise
        except Exception as error:
            if number + 1 == TRIES or refusals.is_final(error):
                raise refused(url, access, error, number + 1) from error
        time.sleep(PAUSE * 2**number)
    raise AssertionError


def refused(url: str, access: Access, error: Exception, tries: int, at: int = -1) -> CaptureError:
    """The error of a URL that cannot be read, after `tries`; `at`: at which byte."""
    why = refusals.reason(url, access.options_for(url), error, access.seconds)
    place = f" at byte {at}" if at > 0 else ""
    again = f", {tries} times" if tries > 1 else ""
    return CaptureError(f"{shown(url)}: cannot be read{place}{again}: {why}")
