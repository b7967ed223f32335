"""Signs of life of a job that reads no packets, such as writing a long table.

Who does such a job calls `step` again and again; the process that runs it says how they are shown.
"""

from __future__ import annotations

from collections.abc import Callable


def _nobody() -> None:
    """Nobody looks."""


_show: Callable[[], None] = _nobody


def show_with(show: Callable[[], None]) -> None:
    """From now on call `show` at each step."""
    global _show  # noqa: PLW0603  # there is one for the process
    _show = show


def step() -> None:
    """Some of the job is done."""
    _show()
