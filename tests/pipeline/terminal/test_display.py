"""The live table and the summary: their contents and their widths."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ringline.pipeline.configuration.dataclass_json import to_json
from ringline.pipeline.supervisor.outcome import given_up_error
from ringline.pipeline.telemetry.flaws import flaws
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal import display, table
from ringline.shm import counters
from ringline.shm.errors import BooksError, GaveUp
from ringline.workers.worker import Worker

from ..idle_instance import Idle, idle_instance


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance(), ports=2) as made:
        yield made


def later(snapshot: Snapshot, seconds: float = 2.0) -> Snapshot:
    return dataclasses.replace(
        snapshot, clock=snapshot.clock + seconds, taken=snapshot.taken + seconds
    )


@pytest.fixture
def pair(idle: Idle) -> tuple[Snapshot, Snapshot]:
    """Two snapshots, two seconds apart, with traffic between them."""
    before = idle.take()
    for queue in range(2):
        block = idle.books.queues[queue]
        block.rx_packets, block.rx_bytes = 13_000_000, 13_000_000 * 60
        block.tx_packets, block.tx_bytes = 12_000_000, 12_000_000 * 60
        block.transmitted, block.drop_plugin = 12_000_000, 1_000_000
        counted = idle.instance.slots[queue].counters
        counted.packets, counted.bytes = 13_000_000, 13_000_000 * 60
    idle.sources.metrics_url = "http://127.0.0.1:9464/metrics"
    idle.sources.workers[1].state = "waiting to restart"
    idle.sources.workers[1].restarts = 3
    after = idle.take()
    return before, later(dataclasses.replace(after, clock=before.clock, taken=before.taken))


def test_rates_are_differences_by_the_second(pair: tuple[Snapshot, Snapshot]) -> None:
    shown = table.board(*pair)
    wan, lan = shown.ports.rows
    assert wan[2:] == ("13.000", "6.24", "12.000", "5.76", "2,000,000")
    assert lan[2:] == ("0.000", "0.00", "0.000", "0.00", "0")
    assert [row[2] for row in shown.workers.rows] == ["6.500", "6.500"]
    assert "wan plugin 2,000,000 (1,000,000/s)" in shown.drops
    assert shown.books == "balanced"


def test_there_are_no_rates_without_two_moments(pair: tuple[Snapshot, Snapshot]) -> None:
    before, now = pair
    restarted = dataclasses.replace(before, started=before.started - 100)
    same = dataclasses.replace(before, clock=now.clock)
    for earlier in (None, restarted, same):
        assert table.board(earlier, now).ports.rows[0][2] == table.NOTHING


def test_a_line_says_the_same_for_a_log(pair: tuple[Snapshot, Snapshot]) -> None:
    told = table.line(*pair, table.Span(pair[0].clock, 10))
    assert "\n" not in told
    assert "2 of 10 s; wan: rx 13.000 Mpps 6.24 Gbit/s, tx 12.000 Mpps; lan: rx" in told
    assert "worker 0: 6.500 Mpps, rings 0/0; worker 1: waiting to restart" in told
    assert "restarts 3" in told
    assert "drops: wan plugin 2,000,000 (1,000,000/s)" in told


def test_books_that_are_off_are_shown_everywhere(idle: Idle) -> None:
    before = idle.take()
    idle.books.balance.packets_residual[0] = -2
    now = later(idle.take())
    assert table.board(before, now).books == "off: packets.wan"
    assert "off: packets.wan" in table.line(before, now)
    assert "balance: OFF: packets.wan -2" in table.summary(now, BooksError("off"))


def test_the_summary_has_the_sums_and_the_balance(pair: tuple[Snapshot, Snapshot]) -> None:
    told = table.summary(pair[1])
    assert "received 26,000,000 (1.56 GB), forwarded 24,000,000" in told
    assert "sent 24,000,000; dropped: plugin 2,000,000 (7.69 %)" in told
    assert "worker 1: 13,000,000 packets, restarts 3" in told
    assert "balance: 0 in all 10 equations" in told
    assert " s: 3 restarts\n" in told
    assert max(map(len, told.splitlines())) <= 80


def test_all_is_well_only_when_it_was(idle: Idle) -> None:
    block, counted = idle.books.queues[0], idle.instance.slots[0].counters
    block.rx_packets, block.transmitted, block.drop_plugin = 100, 60, 40
    assert flaws(idle.take()) == []
    assert "s: all well\n" in table.summary(idle.take())
    for where, name, words in (
        (counted, "plugin_errors", "7 plugin errors"),
        (counted, "verdict_errors", "7 verdict errors"),
        (counted, "tick_errors", "7 tick errors"),
        (idle.books.slots[1], "bad_reference", "7 reference errors"),
        (idle.books.slots[1], "ring_faults", "7 ring errors"),
        (block, "drop_plugin_error", "7 packets lost"),
        (block, "drop_no_worker", "7 packets lost"),
        (block, "drop_worker_lost", "7 packets lost"),
        (idle.sources.workers[1], "restarts", "7 restarts"),
    ):
        setattr(where, name, 7)
        assert flaws(idle.take()) == [words]
        assert "all well" not in table.summary(idle.take())
        setattr(where, name, 0)
    idle.sources.ports[0].statistics = {"rx_missed": 1}
    assert flaws(idle.take()) == ["1 packet lost"]
    assert "dropped: missed 1 (0.99 %), plugin 40 (39.6 %)" in table.summary(idle.take())
    idle.sources.ports[0].statistics = {}
    idle.sources.workers[1].state = "given up"
    assert flaws(idle.take()) == ["1 queue given up"]
    assert "worker 1: 0 packets, given up" in table.summary(idle.take())
    assert "queue 1 was given up" in str(given_up_error(idle.take()))
    idle.sources.workers[1].state = "stopped"
    assert flaws(idle.take()) == []
    idle.sources.state = "ended"
    idle.sources.workers[0].served = True
    assert flaws(idle.take()) == ["ended before 1 worker had started"]


def test_the_summary_of_a_bad_day_lists_everything_in_80_columns(idle: Idle) -> None:
    block = idle.books.queues[0]
    for name in counters.field_names("struct rl_queue_counters"):
        if name.startswith("drop_") and name != "drop_named":
            setattr(block, name, 10**9)
    block.rx_packets = 10**11
    idle.sources.ports[0].statistics = {
        "rx_missed": 12,
        "rx_oversize": 10**9,
        "rx_undersize": 10**9,
    }
    slot = idle.instance.slots[0]
    for name in ("plugin_errors", "verdict_errors", "tick_errors", "packets"):
        setattr(slot.counters, name, 8_900_000_000)
    idle.books.slots[0].latency[3], idle.books.slots[0].latency[12] = 98, 2
    worker = Worker(slot, queue=0, ports=["wan"], options={})
    for number in range(30):
        worker.counter(f"a_counter_with_a_long_name_{number}").add(10**9)
    idle.sources.workers[0].state = "given up"
    idle.sources.workers[0].restarts = 4
    told = table.summary(idle.take(), GaveUp("queue 0 was given up"))
    assert max(map(len, told.splitlines())) <= 80
    flat = " ".join(told.split())
    assert "ended by an error, 1 queue given up, 4 restarts, 8,900,000,000 plugin errors" in flat
    assert "missed 12 (< 0.01 %), oversize 1,000,000,000 (0.98 %)" in flat
    assert "median latency < 0.512 us, p99 latency < 262 us" in flat
    assert "errors: plugin 8,900,000,000, verdict 8,900,000,000, tick 8,900,000,000" in flat
    assert "a_counter_with_a_long_name_19 1,000,000,000, and 10 more" in flat


def test_the_summary_of_an_hour_fits(idle: Idle) -> None:
    block, counted = idle.books.queues[0], idle.instance.slots[0].counters
    many = 10**11  # at 28 Mpps
    block.rx_packets = block.tx_packets = block.transmitted = counted.packets = many
    block.rx_bytes = 60 * many
    snapshot = idle.take()
    worker = snapshot.workers[0]
    worker = dataclasses.replace(
        worker,
        latency=(0,) * 20 + (5,) + worker.latency[21:],
        counters={**worker.counters, "plugin_seconds": 410.0},
    )
    told = table.summary(dataclasses.replace(snapshot, workers=[worker]))
    assert "100,000,000,000 packets, 4.1 ns in plugin, median latency < 67.1 ms,\n" in told
    assert "    p99 latency < 67.1 ms\n" in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_bounded_run_is_shown_since_it_serves(
    pair: tuple[Snapshot, Snapshot], capsys: pytest.CaptureFixture[str]
) -> None:
    """The start does not count: a plugin may have been compiled in it."""
    shown = display.Lines(seconds=10)
    for snapshot in pair:
        shown.show(dataclasses.replace(snapshot, began=snapshot.began - 7))
    assert capsys.readouterr().out.startswith("2 of 10 s; ")


def test_plain_text_is_aligned(pair: tuple[Snapshot, Snapshot]) -> None:
    lines = table.text(table.board(*pair)).splitlines()
    heading = next(line for line in lines if line.startswith("worker"))
    at = heading.index("Gbit/s") + len("Gbit/s")
    assert lines[lines.index(heading) + 1][:at].endswith("3.12")
    assert max(map(len, lines)) <= 80


def drawn(board: table.Board, width: int, height: int = 24) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None, highlight=False).print(
        display.drawn(board, width, height)
    )
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_nothing_is_cut(pair: tuple[Snapshot, Snapshot], width: int) -> None:
    board = table.board(*pair)
    lines = drawn(board, width)
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "…" not in "".join(lines)
    for grid in (board.ports, board.workers):
        for row in (grid.headings, *grid.rows):
            assert any(all(cell in line for cell in row) for line in lines), row
    assert len(lines) <= 24
    assert lines[-1] == "", "an echoed ^C would wrap, and shift what is drawn next"


def in_a_terminal(code: str, **environment: str) -> str:
    """Run `code` on a terminal of 80 columns; return its output."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    written = b""
    try:
        while data := os.read(ours, 65536):
            written += data
    except OSError:  # EIO: the last process on the terminal has ended
        pass
    finally:
        os.close(ours)
        process.wait(timeout=30)
    return written.decode()


SHOW = """
import json, pathlib
from ringline.pipeline.configuration.dataclass_json import from_json
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal.display import display
shown = display()
for path in SNAPSHOTS:
    shown.show(from_json(Snapshot, json.loads(pathlib.Path(path).read_text())))
    shown.announce("worker 0 is replaced")
shown.close()
"""


@pytest.fixture
def show(pair: tuple[Snapshot, Snapshot], tmp_path: Path) -> str:
    paths = []
    for number, snapshot in enumerate(pair):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(to_json(snapshot)))
        paths.append(str(path))
    return f"SNAPSHOTS = {paths!r}\n{SHOW}"


def test_a_terminal_gets_a_table_that_stays_in_its_place(show: str) -> None:
    written = in_a_terminal(show)
    assert written.count("\x1b[1A") > 10, "the cursor never went back up"
    assert "\x1b[?25h" in written, "the cursor was left hidden"
    assert "ringline: worker 0 is replaced" in written


def test_what_a_plugin_prints_goes_above_the_table(show: str) -> None:
    """Workers print to the same terminal: over the table, which is then drawn again."""
    prints = "import subprocess\n" + show.replace(
        "    shown.announce(",
        "    subprocess.run(['sh', '-c', 'printf \"setup\\nhalf a line\" >&2'])\n"
        "    for service in shown.services:\n"
        "        service.turn()\n"
        "    shown.announce(",
    )
    written = in_a_terminal(prints)
    assert re.search(r"\x1b\[1A\x1b\[2Ksetup *\r\n", written)
    assert re.search(r"\x1b\[1A\x1b\[2Khalf a line", written)
    assert written.rindex("half a line") < written.rindex("metrics")


def test_a_terminal_whose_size_has_changed_is_cleared_once(show: str) -> None:
    """Wrapped or cut lines of the old table must not stay above the new one."""
    resized = "import termios\n" + show.replace(
        "    shown.show", "    termios.tcsetwinsize(1, (24, 60))\n    shown.show"
    )
    assert in_a_terminal(resized).count("\x1b[2J") == 1
    assert "\x1b[2J" not in in_a_terminal(show)


def test_no_color_is_honoured(show: str) -> None:
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", in_a_terminal(show, NO_COLOR=""))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", in_a_terminal(show, NO_COLOR="1"))


def test_a_dumb_terminal_and_a_missing_rich_get_lines(show: str) -> None:
    without_rich = (
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'rich' else f(name, *a)\n"
    )
    for written in (in_a_terminal(show, TERM="dumb"), in_a_terminal(without_rich + show)):
        assert "\x1b" not in written
        assert "wan: rx 13.000 Mpps" in written


def test_what_is_no_terminal_gets_pairs_without_control_characters(show: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, timeout=60, check=True
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "port.wan.rx_mpps=13.000000" in done.stdout
    assert done.stderr == "ringline: worker 0 is replaced\n" * 2
