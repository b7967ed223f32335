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
from ringline.pipeline.terminal import stdio, table
from ringline.pipeline.terminal.output import StderrCapture
from ringline.shm.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType
    from rich.table import Table

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
    """One line on standard output for each snapshot after the first."""

    def _draw(self, before: Snapshot | None, now: Snapshot) -> None:
        if before is not None and now.state != table.ENDED:
            print(table.line(before, now, self._span), flush=True)

    def announce(self, sentence: str) -> None:
        """Print one line on standard error."""
        stdio.complain(sentence)

    def close(self) -> None:
        """Nothing to do: the lines stay."""


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
        self._live.update(drawn(board, self._console.width), refresh=True)

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
    """The live table when standard output is a terminal that can show it, else lines."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if sys.stdout.isatty() and not dumb and find_spec("rich") is not None:
        return LiveTable(seconds)
    return Lines(seconds)


def drawn(board: table.Board, width: int) -> RenderableType:
    """The board for a terminal of `width` columns; 80 columns show every cell.

    Workers come last, so that a short terminal cuts off workers and nothing else.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    below = Table.grid(padding=(0, 2, 0, 0))
    for name, words, style in (
        ("drops", board.drops, "" if board.drops == "none" else "yellow"),
        ("buffers", board.buffers, ""),
        ("books", board.books, "" if board.balanced else "bold red"),
        ("metrics", board.url, ""),
    ):
        below.add_row(Text(name, style="dim"), Text(words, style=style))
    return Group(
        Text(board.title, style="bold", overflow="ellipsis", no_wrap=True),
        Padding(_grid(board.ports.within(width)), (1, 0, 1, 0)),
        below,
        Padding(_grid(board.workers.within(width)), (1, 0, 0, 0)),
        # An empty line for the cursor: the terminal echoes ^C there. After a full line the
        # echo would wrap, and the next table would start one line too low.
        Text(),
    )


def _grid(grid: table.Grid) -> Table:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, padding=(0, table.COLUMN_GAP, 0, 0), header_style="dim")
    for number, heading in enumerate(grid.headings):
        left = number < table.LEFT_COLUMNS
        drawn.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in grid.rows:
        plain = row[1] == table.RUNNING or row[1][0].isdigit()
        cells = [Text(cell) for cell in row]
        cells[1].stylize("green" if plain else "yellow")
        drawn.add_row(*cells)
    return drawn
