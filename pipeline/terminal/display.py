"""Displays of a running instance: a live table in a terminal with rich, else text lines.

`ringline run` and `ringline top` call `Display.show` with one snapshot per second.
No control character goes to an output that is not a terminal; rich honours NO_COLOR.
"""

from __future__ import annotations

import contextlib
import os
import sys
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal import layout, stdio, table
from ringline.pipeline.terminal.output import StderrCapture
from ringline.pipeline.terminal.pairs import line as pairs_line
from ringline.shm.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from ringline.pipeline.supervisor.event_loop import Service


class Display(ABC):
    """Shows snapshots as they arrive.

    `seconds` is the length of a bounded run, counted from the first snapshot.
    `services` belong into the event loop of the process that shows them.
    """

    services: Sequence[Service] = ()

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._span: table.Span | None = None
        self._before: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Show this snapshot, with rates since the previous one."""
        if self._span is None and self._seconds is not None:
            self._span = table.Span(snapshot.clock, self._seconds)
        self._draw(self._before, snapshot)
        self._before = snapshot

    @abstractmethod
    def _draw(self, before: Snapshot | None, now: Snapshot) -> None: ...

    @abstractmethod
    def announce(self, sentence: str) -> None:
        """Print a message where the display does not overwrite it."""

    def announce_loss(self, sentence: str) -> None:
        """Print that output was lost: what the screen shows is not known."""
        self.announce(sentence)

    @abstractmethod
    def close(self) -> None:
        """End the display; the last output stays on the screen."""


class Lines(Display):
    """One line on standard output for each snapshot after the first: words, or with `pairs`
    key=value pairs for a program (`pairs.line`)."""

    def __init__(self, seconds: float | None = None, *, pairs: bool = False) -> None:
        super().__init__(seconds)
        self._line = pairs_line if pairs else table.line

    def _draw(self, before: Snapshot | None, now: Snapshot) -> None:
        if before is not None and now.state != table.ENDED:
            print(self._line(before, now, self._span), flush=True)

    def announce(self, sentence: str) -> None:
        """Print one line on standard error."""
        stdio.complain(sentence)

    def close(self) -> None:
        """Nothing to do: the lines stay."""


class Silent(Display):
    """Shows no snapshot: standard output belongs to somebody else."""

    def _draw(self, before: Snapshot | None, now: Snapshot) -> None:
        """Nothing to draw."""

    def announce(self, sentence: str) -> None:
        """Print one line on standard error."""
        stdio.complain(sentence)

    def close(self) -> None:
        """Nothing to do."""


class LiveTable(Display):
    """A table that is redrawn in place with rich, which is imported only here."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._size = self._console.size
        # No refresh thread: it could draw the table into the middle of a line.
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis")
        self._live.start()
        if sys.stderr.isatty():
            self.services = (StderrCapture(self._print_captured),)

    def _draw(self, before: Snapshot | None, now: Snapshot) -> None:
        board = table.board(before, now, self._span)
        if self._size != self._console.size:
            # Some terminals rewrap the old table, so its first line is no longer known.
            self._size = self._console.size
            self._console.clear()
        width, height = self._console.size
        self._live.update(drawn(board, width, height), refresh=True)

    def announce(self, sentence: str) -> None:
        """Print one line above the table."""
        self._print(f"ringline: {printable(sentence)}")

    def announce_loss(self, sentence: str) -> None:
        """Clear the screen first: the lost output may have moved the cursor."""
        with contextlib.suppress(OSError):
            self._console.clear()
        self.announce(sentence)

    def _print(self, text: str) -> None:
        from rich.text import Text

        with contextlib.suppress(OSError):  # the terminal is gone: `_draw` raises for that
            self._console.print(Text.from_ansi(text))

    def _print_captured(self, data: bytes) -> None:
        self._print(data.decode(errors="replace").removesuffix("\n"))

    def close(self) -> None:
        """Restore the error output; the last table stays on the screen."""
        for service in self.services:
            service.close()
        self.services = ()
        with contextlib.suppress(OSError):
            self._live.stop()


def display(seconds: float | None = None) -> Display:
    """The live table when standard output is a terminal that can show it, else lines; key=value
    pairs when it is no terminal."""
    if not sys.stdout.isatty():
        return Lines(seconds, pairs=True)
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if not dumb and find_spec("rich") is not None:
        return LiveTable(seconds)
    return Lines(seconds)


def drawn(board: table.Board, width: int, height: int) -> RenderableType:
    """The board for a terminal of `width` columns and `height` lines (`layout.laid_out`)."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for number, line in enumerate(layout.laid_out(board, width, height)):
        text.append("\n" if number else "")
        for words, style in line:
            text.append(words, style=style)
    return text
