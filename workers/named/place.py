"""Whether this process works for one on another machine, perhaps."""

from __future__ import annotations

_is_away = False


def go_away() -> None:
    """This process does tasks that an engine gave it."""
    global _is_away  # noqa: PLW0603  # it holds for the process
    _is_away = True


def is_away() -> bool:
    """Whether files and hosts that only the results need may be unknown here."""
    return _is_away
