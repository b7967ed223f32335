"""Trying and checking plugins in a child process: every failure becomes a sentence."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.sim82599.capture_card import CaptureCard
from ringline.shm.errors import EnvironmentLacks, PluginError
from ringline.workers.captures.captures import (
    CaptureError,
    CaptureReader,
    Tally,
    read_capture,
    write_capture,
)
from ringline.workers.trials import checking, trial
from ringline.workers.trials.arrivals import Arrived

PLUGINS = Path(__file__).parents[1] / "plugins"
MODULE = "ringline.workers.plugins"
PluginFile = Callable[..., str]

FRAMES = [bytes([0x02, n]) + bytes(4) + bytes([0x04, n]) + bytes(4 + n) for n in range(200)]


def run(plugin: str, capture: str, *arguments: Any, **more: Any) -> trial.Summary:
    """Run a trial with the frames of a capture, as a card delivers them."""
    with CaptureReader(Tally(capture)) as reader:
        card = CaptureCard(reader, PortConfig("port", "sim:82599"))
        return trial.run(plugin, card, *arguments, **more)


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "in.pcap"
    write_capture(path, [*FRAMES, bytes(1519)], range(5, 206))
    return str(path)


@pytest.mark.parametrize("name", ["mac_swap", "mac_swap_compiled", "MacSwapPackets"])
def test_a_trial_gives_frames_and_figures(capture: str, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.pcap"
    told: list[tuple[float, float]] = []
    summary = run(
        f"{MODULE}.mac_swap:{name}", capture, str(out), progress=lambda *n: told.append(n)
    )
    assert summary.counters["packets"] == summary.counters["forwarded"] == 200
    assert summary.per_port == {"port": 200}
    assert summary.too_long == 1
    assert summary.complaints == []
    assert summary.nanoseconds_per_packet is not None
    assert told[-1] == (1.0, 1.0)
    written = read_capture(out)
    swapped = [frame[6:12] + frame[:6] + frame[12:].ljust(48, b"\0") for frame in FRAMES]
    assert [bytes(frame) for frame in written.frames] == swapped
    assert list(written.times) == list(range(5, 205))


def test_options_ports_and_blanks_are_those_of_a_worker(capture: str) -> None:
    summary = run(
        f"{MODULE}.forward:forward",
        capture,
        ports=["wan", "lan", "dmz"],
        options={"map": {"wan": "dmz"}},
    )
    assert summary.per_port == {"wan": 0, "lan": 0, "dmz": 200}
    summary = run(f"{MODULE}.drop:drop", capture, blanks=3)
    assert summary.counters["dropped"] == 200


ODD = """
import os, time
from ringline.workers.api import *

@packet_function
def picky(frame, meta):
    if frame[1] == 7:
        raise ValueError("seven")
    return 1 if frame[1] == 9 else 0

class Odd:
    def process(self, batch):
        for packet in batch:
            {act}
            packet.verdict = 0
"""


def odd(plugin_file: PluginFile, act: str = "pass") -> str:
    return plugin_file(ODD.format(act=act)) + ":Odd"


def test_every_different_error_is_reported_once_with_its_frame(
    capture: str, plugin_file: PluginFile
) -> None:
    path = plugin_file(ODD.format(act="pass"))
    summary = run(f"{path}:picky", capture)
    assert [number for number, _ in summary.complaints] == [8, 10]
    assert "ValueError: seven" in summary.complaints[0][1]
    assert (
        "neither the number of a port (ports: 0 only), DROP nor a drop reason"
        in summary.complaints[1][1]
    )
    assert summary.counters["plugin_errors"] == 1
    assert summary.counters["verdict_errors"] == 1


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("if packet.data[1] == 70: os.abort()", "crashed (SIGABRT) on one of the frames 65 to 128"),
        ("os._exit(3)", "ended the process (exit status 3) on one of the frames 1 to 64"),
        ("if packet.data[1] == 70: time.sleep(99)", "did not return for 1 s on one of the fr"),
    ],
)
def test_a_plugin_that_ends_or_hangs_is_placed_in_the_capture(
    capture: str, plugin_file: PluginFile, act: str, words: str
) -> None:
    with pytest.raises(PluginError) as caught:
        run(odd(plugin_file, act), capture, silence=1.0 if "sleep" in act else 60.0)
    assert words in str(caught.value)
    assert capture in str(caught.value)


def test_output_of_a_plugin_does_not_disturb(capture: str, plugin_file: PluginFile) -> None:
    summary = run(odd(plugin_file, 'print("{}"); os.write(1, b"{}\\n")'), capture)
    assert summary.counters["forwarded"] == 200


def test_bad_files_are_reported(capture: str, tmp_path: Path, plugin_file: PluginFile) -> None:
    plugin = odd(plugin_file)
    with pytest.raises(CaptureError, match="cannot be written"):
        run(plugin, capture, str(tmp_path / "no" / "folder.pcap"))
    with pytest.raises(EnvironmentLacks, match="No space left"):
        run(plugin, capture, "/dev/full")
    with pytest.raises(PluginError, match="has no 'Nothing'"):
        run(plugin.replace("Odd", "Nothing"), capture)
    with pytest.raises(PluginError, match="is not an option"):
        run(plugin, capture, options={"x": 1})


def test_a_capture_without_a_packet_is_no_error(tmp_path: Path, plugin_file: PluginFile) -> None:
    path = tmp_path / "empty.pcap"
    write_capture(path, [])
    summary = run(odd(plugin_file), str(path))
    assert summary.counters["packets"] == 0
    assert summary.nanoseconds_per_packet is None


TICKS = """
class Ticks:
    def setup(self, worker):
        self.seen = 0
        self.table = worker.table("ticks", "after", ["packets"], 10)
        self.rows = []

    def process(self, batch):
        for packet in batch:
            self.seen += 1
            packet.verdict = 0

    def tick(self, worker):
        self.rows.append((f"{len(self.rows)}", [self.seen]))
        self.table.write(self.rows)
        if self.seen == 5:
            raise ValueError("five")
"""


def test_tick_is_called_by_the_times_of_the_frames(tmp_path: Path, plugin_file: PluginFile) -> None:
    """Once for each second with frames, before the first frame after it, and at the end."""
    path = tmp_path / "slow.pcap"
    second = 1_000_000_000
    times = [0, second // 2, second - 1, second, 3 * second, 4 * second - 1, 4 * second]
    write_capture(path, FRAMES[: len(times)], times)
    summary = run(plugin_file(TICKS) + ":Ticks", str(path))
    assert summary.named["ticks"] == [["0", [3]], ["1", [4]], ["2", [6]], ["3", [7]]]
    assert summary.complaints == []
    write_capture(path, FRAMES[:9], [0] * 5 + [second] * 4)
    summary = run(plugin_file(TICKS) + ":Ticks", str(path))
    [(number, complaint)] = summary.complaints
    assert number == 0
    assert complaint.startswith("tick failed: ValueError: five (")
    assert summary.forwarded == 9


def test_an_index_out_of_range_is_an_error_when_it_is_checked(
    capture: str, plugin_file: PluginFile
) -> None:
    path = plugin_file(
        "from ringline.workers.api import packet_function\n\n\n@packet_function\n"
        "def far(frame, meta):\n    return 0 if frame[3000] < 256 else 0\n"
    )
    summary = run(f"{path}:far", capture, debug=True)
    assert summary.counters["plugin_errors"] == 200
    assert "IndexError" in summary.complaints[0][1]
    assert summary.forwarded == 0


class Broken:
    """Frames that end in an exception, as after a bug."""

    too_long = 0
    share = 0.5
    paths: ClassVar = {0: "broken.pcap"}

    def __iter__(self) -> Iterator[Arrived]:
        yield Arrived(1, 0, 0, 0, 0, 0, bytes(60))
        raise ZeroDivisionError("no more frames")


def test_a_failure_of_the_source_is_raised(plugin_file: PluginFile) -> None:
    with pytest.raises(ZeroDivisionError, match="no more frames"):
        trial.run(odd(plugin_file), Broken())


class Slow(Broken):
    """Frames that come slowly, as from a pipe that another program writes."""

    def __iter__(self) -> Iterator[Arrived]:
        for number in range(1, 200, 64):
            for more in range(64):
                yield Arrived(number + more, 0, 0, 0, 0, 0, bytes(60))
            time.sleep(0.8)


def test_a_plugin_is_not_blamed_for_a_slow_source() -> None:
    summary = trial.run(f"{MODULE}.forward:forward", Slow(), silence=0.3)
    assert summary.counters["packets"] == 256


def test_a_correct_plugin_has_no_problems() -> None:
    for name in ("forward:forward", "mac_swap:mac_swap_compiled", "mac_swap:MacSwapColumns"):
        assert checking.check(f"{MODULE}.{name}", {}, ["a", "b"]) == []


@pytest.mark.parametrize(
    ("options", "ports", "words"),
    [
        ({"mpa": 1, "map": 3}, "ab", ['"mpa" is not an option', '"map" must be a table, not 3']),
        ({}, "abc", ["with 3 ports the option map must be given"]),
        (
            {"map": {"a": "x"}},
            "ab",
            ["the port 'x', which does not exist; the ports are a, b"],
        ),
    ],
)
def test_all_problems_are_reported_at_once(
    options: dict[str, object], ports: str, words: list[str]
) -> None:
    problems = checking.check(f"{MODULE}.forward:forward", options, list(ports))
    assert len(problems) == len(words)
    for problem, part in zip(problems, words, strict=True):
        assert part in problem
        assert "forward" in problem


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os\nos.abort()\n", "crashed (SIGABRT) while it was made ready"),
        ("import os\nos._exit(0)\n", "ended the process (exit status 0)"),
        ("import time\ntime.sleep(99)\n", "was not ready after 1 s"),
        ("import asyncio\nraise asyncio.CancelledError\n", "./{}:x: CancelledError ("),
        ("import nonsense_xyz\n", "No module named 'nonsense_xyz'"),
    ],
)
def test_checking_ends_whatever_the_plugin_does(
    plugin_file: PluginFile, source: str, words: str
) -> None:
    folder, name = os.path.split(plugin_file(source))
    seconds = 1.0 if "sleep" in source else 60.0
    [problem] = checking.check(f"./{name}:x", {}, ["a"], folder=folder, seconds=seconds)
    assert words.replace("{}", name) in problem


CHILD = """
import os, time
if os.fork() == 0:
    time.sleep(99)
    os._exit(0)
"""


def descendants() -> set[str]:
    """Return the ids of processes with the mark in their environment."""
    return {name for name in os.listdir("/proc") if name.isdigit() and marked(name)}


def marked(pid: str) -> bool:
    try:
        return b"RINGLINE_TEST_FAMILY=1" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended
        return False


@pytest.mark.parametrize("end", ["", "os._exit(3)"])
def test_processes_of_a_plugin_are_not_waited_for_and_not_left(
    capture: str, plugin_file: PluginFile, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("RINGLINE_TEST_FAMILY", "1")
    path = plugin_file(f"{CHILD}{end}\nfrom {MODULE}.mac_swap import MacSwapPackets\n")
    problems = checking.check(f"{path}:MacSwapPackets", {}, ["a"])
    if end:
        assert "ended the process (exit status 3)" in problems[0]
        with pytest.raises(PluginError, match=r"ended the process \(exit status 3\)"):
            run(f"{path}:MacSwapPackets", capture)
    else:
        assert problems == []
        assert run(f"{path}:MacSwapPackets", capture).counters["forwarded"] == 200
    until = time.monotonic() + 30
    while descendants():
        assert time.monotonic() < until, descendants()
        time.sleep(0.01)


def test_state_that_does_not_fit_the_slot_is_reported_before_the_start() -> None:
    spec = f"{MODULE}.flow_stats:flow_stats"
    [problem] = checking.check(spec, {"slots": 1 << 17}, ["a"], state_bytes=1 << 20)
    told = re.search(r"set state = (\d+) or more under \[worker\]", problem)
    assert told is not None
    enough = int(told[1])  # also for the counters that the plugin names behind its table
    assert checking.check(spec, {"slots": 1 << 17}, ["a"], state_bytes=enough) == []


def test_a_tick_that_fails_is_an_error_of_the_trial(capture: str, plugin_file: PluginFile) -> None:
    path = plugin_file(
        """
class Judge:
    def setup(self, worker):
        self.table = worker.table("who", "source", ["packets"], 8)
        self.table.write([("good", [1])])

    def process(self, batch):
        for packet in batch:
            packet.verdict = packet.port

    def tick(self, worker):
        self.table.write([("x", [1]), ("y", [-1])])
"""
    )
    summary = run(f"{path}:Judge", capture)
    assert summary.counters["forwarded"] == 200
    assert summary.counters["tick_errors"] >= 1
    words = "tick failed: ValueError: a value of a table must be an integer, 0 to 2^64 - 1, not -1"
    assert summary.complaints == [(0, f"{words} ({path}, line 12)")]
    assert summary.trace[0] == f'  File "{path}", line 12, in tick'
    assert summary.named["who"] == [["good", [1]]]
