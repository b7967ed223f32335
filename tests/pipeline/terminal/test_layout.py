"""The live table in terminals of different sizes: what signals trouble is left out last."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.configuration.dataclass_json import to_json
from ringline.pipeline.terminal import table
from ringline.pipeline.terminal.layout import RED, YELLOW, Line, laid_out

from ..idle_instance import idle_instance
from .screen import Screen

PORTS = table.Grid(
    ("port", "link", "rx Mpps", "Gbit/s", "tx Mpps", "Gbit/s", "dropped"),
    (("wan", "10G", "13.000", "6.24", "12.000", "5.76", "2,000,000"),),
    (0, 1, 6, 2, 4, 3, 5),
)


def worker(
    number: int, state: str = "running", restarts: str = "0", errors: str = "0"
) -> list[str]:
    return [str(number), state, "6.500", "3.12", "87%", "12.5", "1024/0", restarts, errors]


def board(number: int = 2, **changes: Any) -> table.Board:
    rows = [worker(queue) for queue in range(number)]
    rows[-1] = worker(number - 1, "waiting", "3", "1,234,567")
    made = table.Board(
        title="ringline edge  running  12 s",
        ports=PORTS,
        workers=table.Grid(
            ("worker", "state", "Mpps", "Gbit/s", "busy", "ns/pkt", "in/out", "restarts", "errors"),
            tuple(map(tuple, rows)),
            (0, 1, 8, 7, 2, 4, 6, 3, 5),
        ),
        drops="none",
        buffers="free 6,400",
        books="balanced",
        balanced=True,
        url="http://127.0.0.1:9464/metrics",
    )
    return dataclasses.replace(made, **changes)


def texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def style_of(word: str, lines: list[Line]) -> str:
    return next(style for line in lines for text, style in line if text.strip() == word)


@given(
    st.integers(1, 16),
    st.integers(1, 250),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(["none", "missed 3", ", ".join(["wan missed 1,000,000 (5/s)"] * 9)]),
)
def test_it_fits_whatever_the_size(
    workers: int, width: int, height: int, balanced: bool, drops: str
) -> None:
    made = board(workers, balanced=balanced, drops=drops)
    lines = texts(laid_out(made, width, height))
    assert len(lines) <= height
    assert lines[-1] == ""
    if width >= 40:  # the shortest words of a fold or a label may be wider below
        assert max(map(len, lines)) <= width


def test_a_large_terminal_shows_everything() -> None:
    lines = texts(laid_out(board(16), 80, 30))
    whole = "\n".join(lines)
    for word in ("dropped", "ns/pkt", "restarts", "errors", "buffers", "books", "metrics"):
        assert word in whole
    assert sum(line.startswith(tuple("0123456789")) for line in lines) == 16
    assert lines.count("") == 4


@pytest.mark.parametrize("width", [36, 40, 60, 70])
def test_errors_and_restarts_are_shown_in_a_narrow_terminal(width: int) -> None:
    lines = texts(laid_out(board(), width, 24))
    heading = next(line for line in lines if line.startswith("worker"))
    assert heading.split()[:2] == ["worker", "state"]
    assert "errors" in heading
    assert ("restarts" in heading) == (width >= 40)
    assert "1,234,567" in "\n".join(lines)
    assert "2,000,000" in "\n".join(lines)


def test_errors_are_red_and_restarts_yellow() -> None:
    lines = laid_out(board(), 80, 24)
    assert style_of("1,234,567", lines) == RED
    assert style_of("3", lines) == YELLOW
    assert style_of("waiting", lines) == YELLOW
    assert style_of("0", lines) != RED
    given_up = table.Grid(
        board().workers.headings, (tuple(worker(0, "given up")),), tuple(range(9))
    )
    assert style_of("given up", laid_out(board(1, workers=given_up), 80, 24)) == RED


def names(lines: list[str]) -> list[str]:
    """The first words of the lines that are not rows of a table."""
    return [line.split()[0] for line in lines if line and line[0].isalpha()]


def test_what_is_left_out_first_matters_least() -> None:
    facts = ["drops", "buffers", "books", "metrics"]
    whole = (13, facts), (11, facts)
    for height, shown in (
        *whole,
        (10, facts[:3]),
        (9, ["drops", "books"]),
        (8, ["drops"]),
        (7, []),
    ):
        lines = texts(laid_out(board(2), 60, height))
        assert [name for name in names(lines) if name in facts] == shown, height
        assert sum(line.startswith(("0", "1")) for line in lines) == 2


def test_trouble_is_shown_in_eight_lines() -> None:
    made = board(16, drops="missed 12", balanced=False, books="off: packets.wan")
    lines = texts(laid_out(made, 60, 9))
    assert names(lines) == ["ringline", "port", "wan", "drops", "books", "worker", "and"]
    assert lines[-3].startswith("15")
    assert "1,234,567" in lines[-3]
    assert lines[-2] == "and 15 more workers"
    lines = texts(laid_out(made, 60, 7))
    assert lines[-2] == "16 workers, 1 of them in trouble"
    assert style_of(lines[-2], laid_out(made, 60, 7)) == RED


def test_workers_in_trouble_come_before_the_others_and_keep_their_order() -> None:
    rows = [worker(0), worker(1, errors="5"), worker(2), worker(3, restarts="1"), worker(4)]
    grid = dataclasses.replace(board().workers, rows=tuple(map(tuple, rows)))
    lines = texts(laid_out(board(5, workers=grid), 80, 9))
    assert [line[0] for line in lines if line[:1].isdigit()] == ["0", "1", "3"]
    assert lines[-2] == "and 2 more workers"


def test_long_drops_are_wrapped_and_cut_only_without_room() -> None:
    drops = ", ".join(f"wan reason{number} 1,000,000" for number in range(6))
    tall = texts(laid_out(board(drops=drops), 60, 30))
    assert " ".join(" ".join(tall).split()).count("reason") == 6
    assert all(
        line.rstrip().endswith(("1,000,000", "1,000,000,")) for line in tall if "reason" in line
    )
    low = texts(laid_out(board(drops=drops), 60, 8))
    assert sum("reason" in line for line in low) == 1
    assert next(line for line in low if line.startswith("drops")).endswith(" …")


# -- in a real terminal -------------------------------------------------------------------

SHOW = """
import json, os, pathlib, sys
from ringline.pipeline.configuration.dataclass_json import from_json
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal.display import display
shown = display()
for path in sys.argv[1:]:
    shown.show(from_json(Snapshot, json.loads(pathlib.Path(path).read_text())))
sys.stdout.flush()
os._exit(0)  # `close` would end the last table with a new line
"""


@pytest.fixture
def bad_day(instance: Callable[[], str], tmp_path: Path) -> Iterator[list[str]]:
    """Files with three snapshots; queue 6 of 8 has errors and restarts, and packets were lost."""
    with idle_instance(instance(), queues=8) as idle:
        paths, begin = [], 0.0
        for number in range(3):
            block, counted = idle.books.queues[6], idle.instance.slots[6].counters
            block.rx_packets = block.transmitted = 3_000_000 * number
            block.drop_worker_lost, counted.plugin_errors = 12 * number, 1_234_567 * number
            idle.sources.workers[6].restarts = 4 * number
            idle.sources.metrics_url = "http://127.0.0.1:9464/metrics"
            snapshot = idle.take()
            begin = snapshot.clock if number == 0 else begin
            path = tmp_path / f"{number}.json"
            path.write_text(
                json.dumps(to_json(dataclasses.replace(snapshot, clock=begin + number)))
            )
            paths.append(str(path))
        yield paths


def shown_in(rows: int, columns: int, paths: list[str]) -> tuple[list[str], str]:
    """What a terminal of this size shows at the end, and all that was written to it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    variables = {**os.environ, "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        variables.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", SHOW, *paths],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=variables,
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 65536):
                written += data
        except OSError:  # EIO: the last process on the terminal has ended
            pass
        finally:
            os.close(ours)
        assert process.wait(timeout=60) == 0, written.decode()
    return Screen(rows, columns).write(written.decode()).lines, written.decode()


@pytest.mark.parametrize(("columns", "rows"), [(60, 8), (80, 24), (200, 50)])
def test_a_terminal_of_any_size_shows_what_went_wrong(
    columns: int, rows: int, bad_day: list[str]
) -> None:
    lines, written = shown_in(rows, columns, bad_day)
    whole = "\n".join(line.rstrip() for line in lines)
    assert lines[0].startswith("ringline t"), whole
    assert whole.count("ringline t") == 1, "an old table is left on the screen"
    assert "…" not in whole
    assert re.search(r"^drops +worker_lost 24 \(12/s\)", whole, re.MULTILINE), whole
    assert re.search(r"^worker +state .*restarts +errors$", whole, re.MULTILINE), whole
    assert re.search(r"^6 +running .* 8 +2,469,134$", whole, re.MULTILINE), whole
    assert re.search(r"\x1b\[1;31m *2,469,134\x1b", written), "the errors are not red"
    rows_of_workers = [line for line in lines if re.match("[0-7] +running", line)]
    if rows == 8:
        assert len(rows_of_workers) == 1
        assert "and 7 more workers" in whole
    else:
        assert len(rows_of_workers) == 8
        for word in ("buffers", "books", "metrics"):
            assert re.search(f"^{word}( |$)", whole, re.MULTILINE)


def test_all_rates_are_shown_in_80_columns(bad_day: list[str]) -> None:
    lines, _ = shown_in(24, 80, bad_day)
    headings = [line.split() for line in lines if line.startswith(("port", "worker"))]
    assert [len(words) for words in headings] == [9, 9]
    for width in itertools.chain(range(36, 60, 8)):
        assert "errors" in "\n".join(shown_in(12, width, bad_day)[0])
