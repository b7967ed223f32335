"""Names of captures that are URLs, and how messages show them."""

from __future__ import annotations

import hashlib
import os
import re
from urllib.parse import unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z0-9+.-]+)*://")
_LOCAL = re.compile(r"(?:file|local)://(?:localhost(?=/))?")
_SCHEME = re.compile(r"(?:^|::)([A-Za-z][A-Za-z0-9+.-]*)(?=://|::)")
_PASSWORD = re.compile(r"(://[^/@:?]*):[^/@?]*@")
_TOKEN = re.compile(r"(https?://)[^/@:?]+@")


def is_url(name: str) -> bool:
    """Whether `name` is a URL, or several of fsspec behind each other with `::`."""
    return _URL.match(name) is not None


def local_path(url: str) -> str | None:
    """The path that a URL `file://` means; None: it has another scheme."""
    found = _LOCAL.match(url)
    if found is None or "::" in url:
        return None
    path = url[found.end() :]
    return path if os.path.exists(path) else unquote(path)


def schemes(url: str) -> list[str]:
    """The schemes in a URL, from the outermost: ["zip", "s3"] of `zip://a.pcap::s3://b/c.zip`."""
    return [scheme.lower() for scheme in _SCHEME.findall(url)]


def shown(name: str) -> str:
    """A URL for messages: passwords are left out, and so is the query of `http:`, where the
    signature of a URL is that was signed in advance. Other names are shown as they are."""
    if not is_url(name):
        return name
    text = _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", name))
    begin, mark, query = text.partition("?")
    if not mark or not {"http", "https"} & set(schemes(name)):
        return text
    return f"{begin}?(hidden {hashlib.sha256(query.encode()).hexdigest()[:6]})"
