"""The live table: redrawn in a terminal where rich is installed, else a line a second.

`Display` is fed with snapshots, by the supervisor of `ringline run` or by asking
another one every second (`watch`). It honours NO_COLOR (rich does) and never
writes control characters into what is no terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_socket import ask
from ringline.pipeline.terminal import stdio, table
from ringline.shm.errors import EnvironmentLacks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from ringline.pipeline.supervisor.event_loop import Service

EVERY = 1.0  # seconds between two questions of `watch`
LINE_BYTES = 4096
PIPE_BYTES = 1 << 16  # more than waits in a pipe


class Display(ABC):
    """Shows one snapshot after the other; `seconds` is how long the run is to serve,
    from the first of them on. `beside` is to be served in the loop meanwhile."""

    beside: Sequence[Service] = ()

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._span: table.Span | None = None
        self._before: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Show the instance as it is now, with rates since the last time."""
        if self._span is None and self._seconds is not None:
            self._span = table.Span(snapshot.clock, self._seconds)
        self._draw(self._before, snapshot)
        self._before = snapshot

    @abstractmethod
    def _draw(self, before: Snapshot | None, now: Snapshot) -> None: ...

    @abstractmethod
    def announce(self, sentence: str) -> None:
        """Tell the operator one thing, and keep it readable."""

    @abstractmethod
    def close(self) -> None:
        """Show nothing more; what was shown last stays."""


class Lines(Display):
    """One line for each snapshot, on standard output."""

    def _draw(self, before: Snapshot | None, now: Snapshot) -> None:
        if before is not None and now.state != table.ENDED:
            print(table.line(before, now, self._span), flush=True)

    def announce(self, sentence: str) -> None:
        """A line on standard error."""
        stdio.complain(sentence)

    def close(self) -> None:
        """Nothing: lines stay where they are."""


class LiveTable(Display):
    """A table that stays in its place, by rich, which is imported when first needed."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._size = self._console.size
        # Drawn by us alone: no thread, and so no table in the middle of a line.
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis")
        self._live.start()
        if sys.stderr.isatty():
            self.beside = (_Beside(self._print),)

    def _draw(self, before: Snapshot | None, now: Snapshot) -> None:
        board = table.board(before, now, self._span)
        if self._size != self._console.size:
            # Some terminals have wrapped the old table anew: nobody knows where it begins.
            self._size = self._console.size
            self._console.clear()
        self._live.update(drawn(board, self._console.width), refresh=True)

    def announce(self, sentence: str) -> None:
        """A line above the table."""
        self._print(f"ringline: {sentence}")

    def _print(self, text: str) -> None:
        from rich.text import Text

        with contextlib.suppress(OSError):  # the terminal has gone: `_draw` tells that
            self._console.print(Text.from_ansi(text))

    def close(self) -> None:
        """Leave the last table on the screen, if that is still there."""
        for service in self.beside:
            service.close()
        self.beside = ()
        with contextlib.suppress(OSError):
            self._live.stop()


class _Beside:
    """Takes what is written to the error output, by children as well, and has it told.

    A plugin that prints would write into the middle of the table, which is drawn by going
    up as many lines as were drawn before. It is a `Service`: the supervisor's loop reads.
    """

    deadline = None

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._terminal = os.dup(2)
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.dup2(write, 2)
        os.close(write)

    def fileno(self) -> int:
        """Readable when something was written."""
        return self._read

    def turn(self) -> None:
        """Tell the lines that were written. One without an end is told in pieces."""
        *lines, self._rest = (self._rest + self._take()).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._tell(b"\n".join(lines).decode(errors="replace"))

    def close(self) -> None:
        """Give the error output back, and tell the rest."""
        os.dup2(self._terminal, 2)
        os.close(self._terminal)
        self._rest += self._take()
        if self._rest:
            self._tell(self._rest.decode(errors="replace").removesuffix("\n"))
        os.close(self._read)

    def _take(self) -> bytes:
        try:
            return os.read(self._read, PIPE_BYTES)
        except BlockingIOError:
            return b""


def display(seconds: float | None = None) -> Display:
    """What suits standard output."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if sys.stdout.isatty() and not dumb and find_spec("rich") is not None:
        return LiveTable(seconds)
    return Lines(seconds)


def drawn(board: table.Board, width: int) -> RenderableType:
    """The board for a terminal of `width` columns; 80 are enough for all of it.

    Workers come last: where there are too many of them, they are what the lower edge cuts.
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
        # The cursor waits here: the ^C that a terminal echoes at the end of a full line would
        # wrap, and the next drawing begin a line too low.
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


def watch(name: str | None) -> None:
    """Show the instance `name` every second until it ends or the operator leaves.

    Raises EnvironmentLacks when it does not run or stops answering at first.
    """
    snapshot = ask(name)
    shown = display()
    try:
        while True:
            shown.show(snapshot)
            time.sleep(EVERY)
            try:
                snapshot = ask(snapshot.name)
            except EnvironmentLacks as error:
                shown.announce(str(error))
                return
    except KeyboardInterrupt:
        pass
    finally:
        shown.close()
