"""How URLs are opened: with which options, and how long an answer may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringline.workers.captures.files.names import schemes


class Hidden(dict[str, Any]):
    """Options of file systems by scheme, such as {"s3": {"key": ...}}. They may be secrets, so
    they are not in its repr."""

    def __repr__(self) -> str:
        return f"<options of {', '.join(self) or 'no scheme'}>"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Access:
    """How URLs are opened.

    options: arguments for file systems of fsspec, by scheme, beside those of its configuration.
    seconds: so long an answer of a server may take.
    waiting: is called while an answer is awaited, several times a second.
    """

    options: Mapping[str, Mapping[str, Any]] = field(repr=False)
    seconds: float
    waiting: Callable[[], None] = _nothing

    def options_for(self, url: str) -> Hidden:
        """The options for the schemes of `url`, and those that fsspec reads from its environment
        variables and files: so they travel with a task."""
        found = {it: _configured(it) | dict(self.options.get(it, {})) for it in schemes(url)}
        return Hidden({it: options for it, options in found.items() if options})

    def of(self, url: str) -> dict[str, Any]:
        """The same for one URL, as JSON values; `Access(**values)` is it again, elsewhere."""
        return {"options": self.options_for(url), "seconds": self.seconds}


def _configured(scheme: str) -> dict[str, Any]:
    try:
        from fsspec.config import conf
    except ImportError:  # to open the URL tells
        return {}
    found = conf.get(scheme)
    return dict(found) if isinstance(found, dict) else {}
