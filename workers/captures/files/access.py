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

    options: arguments for file systems of fsspec, by scheme.
    seconds: so long an answer of a server may take.
    waiting: is called while an answer is awaited, several times a second.
    """

    options: Mapping[str, Mapping[str, Any]] = field(repr=False)
    seconds: float
    waiting: Callable[[], None] = _nothing

    def options_for(self, url: str) -> Hidden:
        """The options for the schemes of `url`."""
        return Hidden({it: dict(self.options[it]) for it in schemes(url) if it in self.options})

    def of(self, url: str) -> dict[str, Any]:
        """The same for one URL, as JSON values; `Access(**values)` is it again, elsewhere."""
        return {"options": self.options_for(url), "seconds": self.seconds}
