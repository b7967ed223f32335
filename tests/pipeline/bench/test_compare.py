"""`ringline bench compare`: two installed versions in turn."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.pipeline.bench import command
from ringline.pipeline.bench.compare import (
    Ratio,
    Value,
    Version,
    describe,
    figures_in,
    has_windows,
    take_turns,
    version_in,
)
from ringline.pipeline.bench.sampling.counters import layout_of
from ringline.shm.errors import EnvironmentLacks, UsageError

FIGURE = {"what": "hop", "unit": "ns", "more": False, "runs": [5.0, 4.0, 9.0, 9.0, 9.0]}


def test_the_versions_take_turns() -> None:
    order = []

    def measure(which: str) -> dict[str, Value]:
        order.append(which)
        value = {"old": 10.0, "new": 20.0}[which] + len(order)
        return {"rate": Value(value, "Mpps", more=True)}

    [ratio] = take_turns(measure, 3)
    assert order == ["old", "new", "new", "old", "old", "new"]
    assert (ratio.old, ratio.new) == ((11.0, 14.0, 15.0), (22.0, 23.0, 26.0))
    assert ratio.rounds == pytest.approx([2.0, 23 / 14, 26 / 15])
    assert ratio.ratio == pytest.approx(26 / 15)


def test_figures_of_one_version_only_are_left_out() -> None:
    found = {
        "old": {"both": Value(1.0, "ns", more=False), "gone": Value(1.0, "ns", more=False)},
        "new": {
            "both": Value(2.0, "ns", more=False, disturbed="the hypervisor"),
            "added": Value(1.0, "ns", more=False),
        },
    }
    [ratio] = take_turns(lambda which: found[which], 2)
    assert (ratio.what, ratio.ratio, ratio.disturbed) == ("both", 2.0, "the hypervisor")


def test_a_folder_without_ringline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a virtual environment in which ringline is"):
        version_in(str(tmp_path))
    with pytest.raises(UsageError, match="there is no program /nowhere/bin/ringline"):
        version_in("/nowhere")


def test_a_version_that_does_not_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("ringline", "python"):
        file = tmp_path / "bin" / name
        file.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        file.chmod(0o755)
    with pytest.raises(EnvironmentLacks, match="--version` failed: it is broken"):
        version_in(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "3", '{"figures": [3]}', '{"figures": [{"what": "hop"}]}', '{"figures": null}']
    + [json.dumps({"figures": [FIGURE | {"runs": runs}]}) for runs in ([], ["fast"], 3)],
)
def test_figures_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(EnvironmentLacks, match=r"of ringline 9 printed figures in an unknown form"):
        figures_in(text, "ringline 9")


def test_figures_of_every_version_are_read() -> None:
    """Old ones have no windows: then each of their short runs counts as one."""
    old = json.dumps({"figures": [FIGURE]})
    new = json.dumps(
        {"figures": [FIGURE | {"windows": [3.0, 2.0], "disturbed": "steal", "verdict": "no"}]}
    )
    assert (has_windows(old), has_windows(new)) == (False, True)
    assert figures_in(old, "old") == {"hop": Value(4.0, "ns", more=False)}
    assert figures_in(new, "new") == {"hop": Value(2.0, "ns", more=False, disturbed="steal")}


def test_the_table_shows_medians_and_their_ratio() -> None:
    ratios = [
        Ratio("pipeline, two cores", "Mpps", True, (10.0, 10.0, 10.0), (12.0, 13.0, 15.0)),
        Ratio("a part", "ns", False, (10.0,), (9.0,), disturbed="the hypervisor took 9% of CPU 1"),
    ]
    layout = layout_of()
    old = Version("ringline 1", ["/old/bin/ringline"], layout)
    text = describe(old, Version("ringline 2", ["ringline"], layout), ratios)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[1] == "old new unit / old lowest highest"
    assert lines[2] == "pipeline, two cores 10.0 13.0 Mpps 1.300 1.200 1.500"
    assert lines[3] == "a part 10.0 9.00 ns 0.900 0.900 0.900"
    told = " ".join(lines)
    assert "old: ringline 1 (/old/bin/ringline); new: ringline 2." in told
    assert "disturbed: the hypervisor took 9% of CPU 1." in told
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("what", [["compare"], ["compare", "a", "b"], ["tx", "compare"]])
def test_compare_needs_one_folder(what: list[str]) -> None:
    given = Namespace(what=what, json=False, runs=1, seconds=1.0, cpus=None)
    with pytest.raises(UsageError, match="bench: compare needs one folder and nothing else"):
        command.measure(given)


ASKING = """
import sys
from ringline.pipeline.bench.command import _end_in_order
from ringline.pipeline.bench.compare import _ask
_end_in_order()
_ask(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_the_other_benchmark_ends_with_this_one(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """It gets SIGTERM and removes its memory."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    other = f"trap 'echo > {ended}; exit' TERM; echo > {begun}; while :; do sleep 0.05; done"
    command = [sys.executable, "-P", "-c", ASKING, "/bin/sh", "-c", other]
    with subprocess.Popen(command) as bench:
        try:
            wait_for(begun.exists)
            bench.send_signal(number)
            assert bench.wait(60) == code
            wait_for(ended.exists)
        finally:
            bench.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
