"""The results of a benchmark beside the limit of the machine, as a table or JSON."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

WIDTH = 80  # characters of a line
GAP = 2  # spaces between two columns
NAME_MIN = 12  # characters of a name before it is wrapped


@dataclass(frozen=True)
class Figure:
    """One result: the median of `runs`, in `unit`.

    `limits` are the runs, in the same unit, of a bare loop that does the same work with
    nothing of ringline around it; empty where there is no such loop. `goal` is the
    promised value on a machine with two cores; `more` means that a larger value is better.
    """

    what: str
    unit: str
    runs: tuple[float, ...]
    limits: tuple[float, ...] = ()
    goal: float | None = None
    more: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def limit(self) -> float | None:
        """The median of the bare loop's runs."""
        return statistics.median(self.limits) if self.limits else None

    @property
    def of_limit(self) -> float | None:
        """The share of the bare limit that was reached; 1.0 is all of it."""
        if self.limit is None or self.value == 0 or self.limit == 0:
            return None
        return self.value / self.limit if self.more else self.limit / self.value

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more else self.value <= self.goal

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as JSON values."""
        return asdict(self) | {
            "value": self.value,
            "limit": self.limit,
            "of_limit": self.of_limit,
            "met": self.met,
        }


def number(value: float | None) -> str:
    """The value with at most two decimals, fewer for a larger value; "-" for None."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as a text table of at most WIDTH columns, with the spread of the runs and the
    goal; then the notes."""
    rows = [
        ("", "", "", "", "", "bare", "of", "", ""),
        ("", "median", "unit", "lowest", "highest", "limit", "limit", "goal", "met"),
    ]
    for figure in figures:
        share = figure.of_limit
        goal = "-"
        if figure.goal is not None:
            goal = f"{'>=' if figure.more else '<='} {number(figure.goal)}"
        rows.append(
            (
                figure.what,
                number(figure.value),
                figure.unit,
                number(min(figure.runs)),
                number(max(figure.runs)),
                number(figure.limit),
                "-" if share is None else f"{share:.2f}",
                goal,
                {True: "yes", False: "no", None: ""}[figure.met],
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = min(widths[0], max(WIDTH - sum(widths[1:]) - GAP * (len(widths) - 1), NAME_MIN))
    lines: list[str] = []
    for what, *cells in rows:
        *above, last = _name(what, widths[0])
        aligned = [
            cell.ljust(width) if i in (1, 7) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths[1:], strict=True))
        ]
        lines += above
        lines.append((" " * GAP).join([last.ljust(widths[0]), *aligned]).rstrip())
    for figure in figures:
        if figure.note:
            lines += textwrap.wrap(f"{figure.what}: {figure.note}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _name(what: str, width: int) -> list[str]:
    """The name of a figure in lines of `width` characters; an indented name stays indented."""
    indent = " " * (len(what) - len(what.lstrip()))
    return textwrap.wrap(what, width, subsequent_indent=indent + "  ", break_long_words=False) or [
        ""
    ]
