"""The results of a benchmark: derived values and the text table."""

from __future__ import annotations

from typing import Any

import pytest

from ringline.pipeline.bench.figures import Figure, in_windows, number, table
from ringline.shm.errors import EnvironmentLacks


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


def test_the_best_fifth_of_each_run_counts() -> None:
    runs = [[float(value) for value in range(first, first + 10)] for first in (10, 20, 30)]
    time = in_windows("hop", "ns", runs, [[5.0, 6.0]])
    assert (time.runs, time.limits) == ((10.5, 20.5, 30.5), (5.0,))
    assert (time.value, time.median) == (20.5, 24.5)
    assert time.spread == pytest.approx(23 / 24.5)
    assert in_windows("whole", "Mpps", runs, more=True).runs == (18.5, 28.5, 38.5)


def test_a_run_in_which_nothing_moved_is_no_figure() -> None:
    with pytest.raises(EnvironmentLacks, match="hop: nothing moved while it was measured"):
        in_windows("  hop", "ns", [[1.0], []])


def test_a_goal_is_a_share_of_the_limit_or_holds_for_one_machine() -> None:
    hop = Figure("hop", "ns", (2.0,), (1.9,), goal=1.0, goal_on="a machine", goal_of_limit=0.9)
    assert hop.met is True
    assert Figure("hop", "ns", (2.0,), (1.7,), goal_of_limit=0.9).met is False
    other = Figure("hop", "ns", (2.0,), goal=1.0, goal_on="a machine")
    assert (other.met, other.verdict, other.absolute()) == (None, "", "hop <= 1.00 ns")
    assert Figure("hop", "ns", (2.0,), goal=1.0).absolute() == ""


def test_a_missed_goal_is_in_doubt_when_the_runs_were_disturbed() -> None:
    def verdict(value: float, disturbed: str) -> str:
        return Figure("hop", "ns", (value,), goal=2.0, disturbed=disturbed).verdict

    assert [verdict(1.0, ""), verdict(3.0, "")] == ["yes", "no"]
    assert [verdict(1.0, "steal"), verdict(3.0, "steal")] == ["yes", "disturbed"]
    share = Figure("hop", "ns", (1.0,), (1.0,), goal_of_limit=0.9, disturbed="steal")
    assert share.verdict == "disturbed", "the bare loop may have been slowed down, too"


def test_more_than_the_bare_limit_is_a_bug_and_says_so() -> None:
    def notes(value: float, **given: Any) -> str:
        return " ".join(Figure("rate", "Mpps", (value,), (50.0,), more=True, **given).notes())

    assert "this is a bug of the benchmark" in notes(53.0)
    assert "bug" not in notes(50.0)
    assert "bug" not in notes(52.0), "two measurements of one loop may differ by so much"
    assert "bug" not in notes(60.0, disturbed="steal")
    assert "bug" not in notes(60.0, compares=True), "another measurement is no limit"


def test_json_has_the_keys_of_older_versions_and_the_windows() -> None:
    told = in_windows("hop", "ns", [[2.0, 4.0]], [[1.0]], goal=2.5).to_json()
    old = {"what", "unit", "runs", "limits", "goal", "more", "note"}
    assert old | {"value", "limit", "of_limit", "met"} <= set(told)
    assert told["windows"] == (2.0, 4.0)
    assert (told["value"], told["median"], told["of_limit"]) == (2.0, 3.0, 0.5)
    assert (told["met"], told["verdict"], told["disturbed"]) == (True, "yes", "")


def test_the_table_has_a_row_per_figure_and_then_the_notes() -> None:
    text = table(
        [
            Figure("hop", "ns", (2.0,), (1.0,), 2.9, note="two runs", windows=(2.0, 3.0, 4.0)),
            Figure("b", "s", (1.0,), goal=0.5, disturbed="the hypervisor took 9%; and more"),
            Figure("c", "ns", (2.0,), (1.0,), goal=3.0, goal_on="X", goal_of_limit=0.4),
        ]
    )
    above, head, hop, b, c, *notes = (" ".join(line.split()) for line in text.splitlines())
    assert above == "best bare of"
    assert head == "fifth median spread unit limit limit goal met"
    assert hop == "hop 2.00 3.00 67% ns 1.00 0.50 <= 2.90 yes"
    assert b == "b 1.00 1.00 0% s - - <= 0.50 disturbed"
    assert c == "c 2.00 2.00 0% ns 1.00 0.50 >= 0.40x yes"
    assert notes == [
        "hop: two runs",
        "disturbed, the hypervisor took 9%: b",
        "goals on X: c <= 3.00 ns",
    ]
    first, second, *_ = text.splitlines()
    for word in ("bare", "of"):
        assert second[: first.index(word) + len(word)].endswith("limit")


def test_a_spread_without_meaning_is_short() -> None:
    text = table([Figure("hop", "ns", (2.0,), windows=(1.0, 2.0, 900.0))])
    assert "  >999%  " in text


def test_the_table_fits_into_80_columns() -> None:
    """Long names and notes are wrapped, and a name that is indented stays so."""
    names = ("packet after silence, later than the earliest", "  memory, worker with a C plugin")
    figures = [
        Figure(
            name,
            "Mpps",
            (12345.0, 3.0),
            (99999.0,),
            goal_of_limit=0.5,
            more=True,
            note="a word " * 20,
            disturbed="a reason " * 9,
        )
        for name in names
    ]
    lines = table(figures).splitlines()
    assert max(map(len, lines)) <= 80
    told = " ".join(" ".join(lines).split())
    assert told.count("a word") == 20, "what two figures have in common is told once"
    first = next(n for n, line in enumerate(lines) if line.startswith("packet after"))
    assert "12345" not in lines[first]
    assert lines[first + 1].startswith("  ")
    second = next(n for n, line in enumerate(lines) if line.startswith("  memory,"))
    assert lines[second + 1].startswith("    ")
