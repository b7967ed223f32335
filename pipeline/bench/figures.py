"""The results of a benchmark beside the limit of the machine, as a table or JSON."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ringline.pipeline.bench.sampling.windows import best_fifth, spread
from ringline.shm.errors import EnvironmentLacks

WIDTH = 80  # characters of a line
GAP = 2  # spaces between two columns
SPREAD_MAX = 9.99  # a larger one only says that the machine was busy
NAME_MIN = 12  # characters of a name before it is wrapped
SAME = 0.05  # two measurements of one loop differ by up to this share


@dataclass(frozen=True)
class Figure:
    """One result, in `unit`: of each run in `runs` the mean of the best fifth of its windows, or
    the run itself where it has no windows.

    `windows` are those of all runs. `limits` are the runs, in the same unit, of a bare loop that
    does the same work with nothing of ringline around it; empty where there is no such loop.
    `goal` is the promised value, and `goal_on` the machine for which it is promised; empty: any
    machine. `goal_of_limit` is the promised share of the bare limit, on any machine. `more` means
    that a larger value is better. `disturbed` says what disturbed the runs. `derived` figures
    were computed from others.
    """

    what: str
    unit: str
    runs: tuple[float, ...]
    limits: tuple[float, ...] = ()
    goal: float | None = None
    more: bool = False
    note: str = ""
    windows: tuple[float, ...] = ()
    disturbed: str = ""
    goal_of_limit: float | None = None
    goal_on: str = ""
    derived: bool = False
    compares: bool = False

    @property
    def value(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def median(self) -> float:
        """The median of all windows, or of the runs where there are none."""
        return statistics.median(self.windows or self.runs)

    @property
    def spread(self) -> float:
        """How far the windows are apart, or the runs where there are none: see `spread`."""
        return spread(self.windows or self.runs)

    @property
    def limit(self) -> float | None:
        """The median of the bare loop's runs."""
        return statistics.median(self.limits) if self.limits else None

    @property
    def of_limit(self) -> float | None:
        """The share of the bare limit that was reached; 1.0 is all of it."""
        if self.limit is None or self.value <= 0 or self.limit <= 0:
            return None
        return self.value / self.limit if self.more else self.limit / self.value

    @property
    def above_limit(self) -> bool:
        """Whether more than the bare limit was reached, by more than SAME. Then the bare loop is no
        limit: a bug of the benchmark."""
        return not self.compares and self.of_limit is not None and self.of_limit > 1 + SAME

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal, or with one for another machine only."""
        if self.goal_of_limit is not None and self.of_limit is not None:
            return self.of_limit >= self.goal_of_limit
        if self.goal is None or self.goal_on:
            return None
        return self.value >= self.goal if self.more else self.value <= self.goal

    @property
    def verdict(self) -> str:
        """yes, no, disturbed, or nothing without a goal. A disturbance makes no value better, so
        only a missed goal is in doubt; but it may slow down a bare loop."""
        if self.met is None:
            return ""
        if self.disturbed and (self.goal_of_limit is not None or not self.met):
            return "disturbed"
        return "yes" if self.met else "no"

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as JSON values."""
        return asdict(self) | {
            "value": self.value,
            "median": self.median,
            "spread": self.spread,
            "limit": self.limit,
            "of_limit": self.of_limit,
            "met": self.met,
            "verdict": self.verdict,
        }

    def notes(self) -> list[str]:
        """What the table says below its rows about this one."""
        told = [self.note] if self.note else []
        if self.derived:
            told.append("derived, not measured")
        if self.above_limit and not self.disturbed:
            told.append("above its bare limit: this is a bug of the benchmark, please report it")
        return told

    def absolute(self) -> str:
        """The goal for one kind of machine, as in `handoff <= 2.9 ns`; empty without one."""
        if self.goal is None or not self.goal_on:
            return ""
        sign = ">=" if self.more else "<="
        return f"{self.what.strip()} {sign} {number(self.goal)} {self.unit}"


def in_windows(
    what: str,
    unit: str,
    runs: Sequence[Sequence[float]],
    limits: Sequence[Sequence[float]] = (),
    *,
    more: bool = False,
    **given: Any,
) -> Figure:
    """A Figure of runs that have windows; `limits` are the windows of the runs of the bare loop.
    The other arguments are fields of Figure.

    Raises EnvironmentLacks when a run has no window in which something moved.
    """
    if not all((*runs, *limits)):
        raise EnvironmentLacks(
            f"{what.strip()}: nothing moved while it was measured, so the CPUs are busy with other "
            "work: try again when they are not"
        )
    return Figure(
        what,
        unit,
        tuple(best_fifth(run, more=more) for run in runs),
        tuple(best_fifth(run, more=more) for run in limits),
        windows=tuple(value for run in runs for value in run),
        more=more,
        **given,
    )


def number(value: float | None) -> str:
    """The value with at most two decimals, fewer for a larger value; "-" for None."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as a text table of at most WIDTH columns: the best fifth of the windows, their
    median and spread, the bare limit, and the goal (0.90x: this share of the bare limit). Then the
    notes."""
    rows: list[tuple[str, ...]] = [
        ("", "best", "", "", "", "bare", "of", "", ""),
        ("", "fifth", "median", "spread", "unit", "limit", "limit", "goal", "met"),
    ]
    rows += [_row(figure) for figure in figures]
    told: dict[str, list[str]] = {}  # what several figures have in common is told once
    absolute: dict[str, list[str]] = {}
    for figure in figures:
        for note in figure.notes():
            told.setdefault(note, []).append(figure.what.strip())
        if goal := figure.absolute():
            absolute.setdefault(figure.goal_on, []).append(goal)
    below = [f"{', '.join(names)}: {note}" for note, names in told.items()]
    disturbed: dict[str, list[str]] = {}  # by the first reason; JSON has all of them
    for figure in figures:
        if figure.disturbed:
            disturbed.setdefault(figure.disturbed.partition(";")[0], []).append(figure.what.strip())
    below += [f"disturbed, {reason}: {'; '.join(names)}" for reason, names in disturbed.items()]
    below += [f"goals on {machine}: {'; '.join(goals)}" for machine, goals in absolute.items()]
    return "\n".join([*aligned(rows, left=4), *paragraphs(below)])


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows of cells as lines of at most WIDTH characters. Numbers end below each other; the first
    column, which is wrapped, and the column `left` begin below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = min(widths[0], max(WIDTH - sum(widths[1:]) - GAP * (len(widths) - 1), NAME_MIN))
    lines: list[str] = []
    for what, *cells in rows:
        *above, last = _name(what, widths[0])
        padded = [
            cell.ljust(width) if i == left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths[1:], strict=True), 1)
        ]
        lines += above
        lines.append((" " * GAP).join([last.ljust(widths[0]), *padded]).rstrip())
    return lines


def paragraphs(sentences: Iterable[str]) -> list[str]:
    """Each sentence in lines of at most WIDTH characters."""
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(sentence, WIDTH, subsequent_indent="  ")
    ]


def _row(figure: Figure) -> tuple[str, ...]:
    share, goal = figure.of_limit, "-"
    sign = ">=" if figure.more else "<="
    if figure.goal_of_limit is not None:
        goal = f">= {figure.goal_of_limit:.2f}x"
    elif figure.goal is not None and not figure.goal_on:
        goal = f"{sign} {number(figure.goal)}"
    return (
        figure.what,
        number(figure.value),
        number(figure.median),
        f"{figure.spread:.0%}" if figure.spread < SPREAD_MAX else f">{SPREAD_MAX:.0%}",
        figure.unit,
        number(figure.limit),
        "-" if share is None else f"{share:.2f}",
        goal,
        figure.verdict,
    )


def _name(what: str, width: int) -> list[str]:
    """The name of a figure in lines of `width` characters; an indented name stays indented."""
    indent = " " * (len(what) - len(what.lstrip()))
    return textwrap.wrap(what, width, subsequent_indent=indent + "  ", break_long_words=False) or [
        ""
    ]
