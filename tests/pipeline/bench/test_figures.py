"""The results of a benchmark: derived values and the text table."""

from __future__ import annotations

import pytest

from ringline.pipeline.bench.figures import Figure, number, table


def test_a_time_meets_its_goal_from_below_and_a_rate_from_above() -> None:
    time = Figure("hop", "ns", (3.0, 2.0, 9.0), (1.5,), goal=2.9)
    assert (time.value, time.limit, time.of_limit, time.met) == (3.0, 1.5, 0.5, False)
    rate = Figure("whole", "Mpps", (30.0,), (60.0,), goal=20.0, more=True)
    assert (rate.of_limit, rate.met) == (0.5, True)
    alone = Figure("memory", "MB", (10.0,))
    assert (alone.limit, alone.of_limit, alone.met) == (None, None, None)


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.123, "0.12"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_a_number_is_short(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_the_table_has_a_row_per_figure_and_then_the_notes() -> None:
    text = table(
        [Figure("hop", "ns", (2.0,), (1.0,), 2.9, note="two runs"), Figure("b", "s", (1.0,))]
    )
    above, head, hop, other, note = text.splitlines()
    assert above.split() == ["bare", "of"]
    assert " ".join(head.split()) == "median unit lowest highest limit limit goal met"
    for word in ("bare", "of"):
        assert head[: above.index(word) + len(word)].endswith("limit")
    assert " ".join(hop.split()) == "hop 2.00 ns 2.00 2.00 1.00 0.50 <= 2.90 yes"
    assert " ".join(other.split()) == "b 1.00 s 1.00 1.00 - - -"
    assert note == "hop: two runs"


def test_the_table_fits_into_80_columns() -> None:
    """Long names and notes are wrapped, and a name that is indented stays so."""
    names = ("packet after silence, later than the earliest", "  memory, worker with a C plugin")
    figures = [
        Figure(name, "Mpps", (12345.0, 3.0), (99999.0,), 50.0, more=True, note="a word " * 20)
        for name in names
    ]
    lines = table(figures).splitlines()
    assert max(map(len, lines)) <= 80
    told = " ".join(" ".join(lines).split())
    assert told.count("a word") == 40
    first = next(n for n, line in enumerate(lines) if line.startswith("packet after"))
    assert "12345" not in lines[first]
    assert lines[first + 1].startswith("  ")
    second = next(n for n, line in enumerate(lines) if line.startswith("  memory,"))
    assert lines[second + 1].startswith("    ")
