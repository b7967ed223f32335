"""Fits the live table into a terminal of any size, as lines of styled text.

All functions are pure; `display` prints the lines. What signals trouble is left out last:

 - In a narrow terminal, columns are left out in the order of `Grid.order`: a worker's errors and
   restarts and a port's drops stay longest.
 - In a low terminal, these are left out, one after the other, until the rest fits: empty lines,
   the URL of the metrics, the buffers, the books if they balance, the drops if there are none,
   more than one line of drops, then workers, those without trouble first, then ports.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from ringline.pipeline.telemetry.flaws import GIVEN_UP
from ringline.pipeline.terminal.table import (
    COLUMN_GAP,
    ERRORS,
    LEFT_COLUMNS,
    RESTARTS,
    RUNNING,
    Board,
    Grid,
)

Span = tuple[str, str]  # text, and its style as rich names it
Line = tuple[Span, ...]

FIXED = "\xa0"  # a space where textwrap breaks no line
LABEL_WIDTH = 9  # characters of "buffers" and a gap
RED, YELLOW, GREEN, DIM = "bold red", "yellow", "green", "dim"
EMPTY: Line = ()


def laid_out(board: Board, width: int, height: int) -> list[Line]:
    """The board in at most `height` lines of at most `width` characters.

    The last line is empty, for the cursor: the terminal echoes ^C there. After a full line the
    echo would wrap, and the next table would start one line too low.
    """
    title: list[Line] = [((_cut(board.title, width), "bold"),)]
    ports, workers = board.ports.within(width), board.workers.within(width)
    plain = {
        "drops": _fact("drops", board.drops, "" if board.drops == "none" else YELLOW, width),
        "buffers": _fact("buffers", board.buffers, "", width),
        "books": _fact("books", board.books, "" if board.balanced else RED, width),
        "metrics": _fact("metrics", board.url, "", width),
    }

    def lines(separated: bool, rows: int | None, port_rows: int | None) -> list[Line]:
        gap = [EMPTY] if separated else []
        facts = [line for fact in plain.values() for line in fact]
        parts = [title, _grid(ports, port_rows, "port"), facts, _grid(workers, rows, "worker")]
        return [line for part in parts if part for line in (*part, *gap)][: -len(gap) or None]

    def fits(separated: bool = False, rows: int | None = None) -> list[Line] | None:
        made = lines(separated, rows, None)
        return [*made, EMPTY] if len(made) < height else None

    if (whole := fits(separated=True) or fits()) is not None:
        return whole
    for name in ("metrics", "buffers", "books", "drops"):
        if name == "books" and not board.balanced:
            continue
        if name == "drops" and board.drops != "none":
            plain[name] = _shortened(plain[name], width)
        else:
            del plain[name]
        if (whole := fits()) is not None:
            return whole
    for rows in range(len(workers.rows) - 1, -1, -1):
        if (whole := fits(rows=rows)) is not None:
            return whole
    for port_rows in range(len(ports.rows) - 1, -1, -1):
        made = lines(False, 0, port_rows)
        if len(made) < height:
            return [*made, EMPTY]
    return [*lines(False, 0, 0)[: max(height - 1, 0)], EMPTY][:height]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _fact(name: str, words: str, style: str, width: int) -> list[Line]:
    """The name and the words, in as many lines as they need; no item between commas is split."""
    items = ", ".join(item.replace(" ", FIXED) for item in words.split(", "))
    rows = [row.replace(FIXED, " ") for row in textwrap.wrap(items, max(width - LABEL_WIDTH, 1))]
    label: Span = (name.ljust(LABEL_WIDTH)[:width], DIM)
    return [
        (label if number == 0 else (" " * LABEL_WIDTH, ""), (row, style))
        for number, row in enumerate(rows or [""])
    ]


def _shortened(lines: list[Line], width: int) -> list[Line]:
    """The first line, which says that there were more."""
    if len(lines) == 1:
        return lines
    label, (words, style) = lines[0]
    return [(label, (words[: max(width - LABEL_WIDTH - 2, 0)] + " …", style))]


def _grid(grid: Grid, rows: int | None, what: str) -> list[Line]:
    """The headings and the rows; `rows` is how many, None: all. The rows in trouble come before
    the others; the last line says how many are not shown. With no row there are no headings."""
    styles = [[_style(grid, number, cell) for number, cell in enumerate(row)] for row in grid.rows]
    worst = sorted(range(len(grid.rows)), key=lambda at: (not _in_trouble(styles[at]), at))
    count = len(worst) if rows is None else rows
    shown = sorted(worst[:count])
    widths = [
        max(map(len, column), default=0) for column in zip(grid.headings, *grid.rows, strict=True)
    ]
    lines: list[Line] = []
    if shown and grid.headings:
        lines.append(tuple(_cells(grid.headings, [DIM] * len(widths), widths)))
        lines += [tuple(_cells(grid.rows[at], styles[at], widths)) for at in shown]
    if hidden := worst[count:]:
        lines.append(
            _about(len(hidden), sum(_in_trouble(styles[at]) for at in hidden), what, shown)
        )
    return lines


def _about(number: int, bad: int, what: str, shown: Sequence[int]) -> Line:
    """How many rows are not shown, and how many of them are in trouble."""
    words = f"{'and ' if shown else ''}{number}{' more' if shown else ''} {what}"
    words += "" if number == 1 else "s"
    if bad:
        return ((f"{words}, {bad} of them in trouble", RED),)
    return ((words, DIM),)


def _style(grid: Grid, number: int, cell: str) -> str:
    if number == 1:  # the state of a worker, the link of a port
        well = cell == RUNNING or cell[0].isdigit()
        return GREEN if well else RED if cell == GIVEN_UP else YELLOW
    if cell != "0" and grid.headings[number] == ERRORS:
        return RED
    if cell != "0" and grid.headings[number] == RESTARTS:
        return YELLOW
    return ""


def _in_trouble(styles: Sequence[str]) -> bool:
    return RED in styles or YELLOW in styles


def _cells(row: Sequence[str], styles: Sequence[str], widths: Sequence[int]) -> Iterator[Span]:
    """The cells and the gaps between them."""
    for number, (cell, style, width) in enumerate(zip(row, styles, widths, strict=True)):
        if number:
            yield " " * COLUMN_GAP, ""
        left = number < LEFT_COLUMNS
        yield (cell.ljust(width) if left else cell.rjust(width)), style
