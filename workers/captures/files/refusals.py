"""Says in one sentence why a URL cannot be read.

fsspec has no errors of its own: each file system raises those of its libraries. They tell what
happened by the kind of exception, by the status code of HTTP, or by the names of their classes,
in any exception of a chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ringline.shm.text import printable
from ringline.workers.captures.capture_table import CaptureError
from ringline.workers.captures.files.names import schemes, shown

EXTRA = "ringline[urls]"
_IN_EXTRA = {"fsspec", "s3fs", "aiohttp", "aiobotocore", "botocore"}
_DETAIL = 200  # characters of a library's own words


class NoAnswer(Exception):
    """A server did not answer in time."""


def missing(name: str, package: str) -> CaptureError:
    """The error when `package` is not installed."""
    scheme = schemes(name)[0]
    if package in _IN_EXTRA:
        how = f"install ringline with its extra urls (pip install '{EXTRA}')"
    else:
        how = f"install it (pip install {package})"
    return CaptureError(
        f"{printable(shown(name))}: the package {package}, which reads {scheme}://, is missing: "
        f"{how}, or download the file first"
    )


def is_final(error: BaseException) -> bool:
    """Whether it is of no use to ask again."""
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 425, 429)
    if _is_unreachable(error) or _is_broken(error):
        return False
    kinds = (FileNotFoundError, PermissionError, IsADirectoryError, NoAnswer)
    wrong = (ValueError, TypeError, ImportError, NotImplementedError)
    return isinstance(error, (*kinds, *wrong)) or _lacks_credentials(error)


def is_replaced(error: BaseException) -> bool:
    """Whether a file is not any more what it was when it was opened, as s3fs tells."""
    return _status(error) == 412 or "FileExpired" in _kinds(error)


def reason(url: str, options: Mapping[str, Any], error: BaseException, seconds: float) -> str:
    """Why `url` cannot be read, as the end of a sentence."""
    status = _status(error)
    if isinstance(error, NoAnswer):
        return f"its server gave no answer for {seconds:g} s: is the host right, and reachable?"
    if status in (401, 403) or _any(error, PermissionError):
        code = f" (status {status})" if status else ""
        return (
            f"access is denied{code}: check the credentials, and that they may read it (s3 tells "
            "the same of an object that is not there, to those who may not list the bucket)"
            if schemes(url)[-1] in ("s3", "s3a")
            else f"access is denied{code}: check the credentials, and that they may read it"
        )
    if _lacks_credentials(error):
        return (
            "there are no credentials for it: set them as its library wants them in the "
            "environment, or give them with --storage-options"
        )
    if _is_broken(error):
        return f"the connection broke ({type(_deepest(error)).__name__})"
    if _is_unreachable(error):
        return f"its server cannot be reached ({type(_deepest(error)).__name__})"
    if status is not None and status != 404:
        return f"its server answers with status {status}"
    if status == 404 or _any(error, FileNotFoundError):
        lacks_bucket = any("specified bucket" in str(it) for it in _chain(error))
        return f"there is no such {'bucket' if lacks_bucket else 'file or folder'}"
    if _any(error, IsADirectoryError):
        return "is a folder; name a capture in it"
    return f"{type(error).__name__}: {_scrubbed(_words(error), url, options)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _deepest(error: BaseException) -> BaseException:
    return list(_chain(error))[-1]


def _any(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(it, kind) for it in _chain(error))


def _status(error: BaseException) -> int | None:
    """The status code of HTTP that an exception of aiohttp or botocore has."""
    for it in _chain(error):
        status = getattr(it, "status", None)
        response = getattr(it, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _lacks_credentials(error: BaseException) -> bool:
    return any("Credentials" in type(it).__name__ for it in _chain(error))


def _is_broken(error: BaseException) -> bool:
    """Whether a connection ended too early."""
    signs = ("Payload", "Disconnected", "Incomplete", "ConnectionClosed", "ConnectionReset")
    return type(error) is ConnectionError or any(
        sign in name for name in _kinds(error) for sign in signs
    )


def _is_unreachable(error: BaseException) -> bool:
    signs = ("Connect", "DNS", "Timeout", "gaierror")
    return any(sign in name for name in _kinds(error) for sign in signs)


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for it in _chain(error) for kind in type(it).__mro__}


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())


def _scrubbed(words: str, url: str, options: Any) -> str:
    """A library's own words without the secrets in the URL and in the options."""
    words = words.replace(url, shown(url))
    for secret in _texts(options):
        if len(secret) >= 4:
            words = words.replace(secret, "***")
    return printable(words[:_DETAIL])


def _texts(options: Any) -> Iterator[str]:
    if isinstance(options, str):
        yield options
    elif isinstance(options, Mapping):
        for value in options.values():
            yield from _texts(value)
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _texts(value)
