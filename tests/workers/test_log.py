"""`worker.log`: what a plugin says to the operator."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ringline.shm.framing import ENVIRONMENT
from ringline.workers.named.log import BURST, LINE_MAX, Log
from ringline.workers.process.channel import Channel
from ringline.workers.testing import run_plugin
from ringline.workers.trials.checking import check

from .conftest import WorkerHarness

PLUGIN = """
class Talks:
    def setup(self, worker):
        self.log = worker.log
        self.log.info("limit is %d", 7)
    def process(self, batch):
        for packet in batch:
            self.log.warning("frame %s", bytes(packet.data[:2]))
            packet.verdict = packet.port
    def tick(self, worker):
        worker.log.error("a\\x1b[31m\\nline")
"""

CREATES = """
class Creates:
    def setup(self, worker):
        self.log = worker.log
    def process(self, batch):
        if not batch.create(bytes(60), 0):
            self.log.warning("no blank")
"""


class Lines:
    """Takes lines, or not."""

    def __init__(self) -> None:
        self.now = 0.0
        self.taken: list[tuple[str, str]] = []
        self.ready = True
        self.log = Log(self.write, clock=lambda: self.now)

    def write(self, level: str, line: str) -> bool:
        if self.ready:
            self.taken.append((level, line))
        return self.ready


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.mark.parametrize(
    ("text", "arguments", "line"),
    [
        ("plain", (), "plain"),
        ("50 %", (), "50 %"),
        ("%d of %s", (3, "x"), "3 of x"),
        ("%(a)s", ({"a": 1},), "1"),
        (ValueError("no"), (), "no"),
        ("a\x1b[0m\r\nb\u2028", (), r"a\x1b[0m\r\nb\u2028"),
        ("%d", ("x",), "a line that cannot be formatted: TypeError: "),
        ("x" * 501, (), "x" * LINE_MAX + "..."),
    ],
)
def test_a_line_is_printable_and_short(
    lines: Lines, text: Any, arguments: tuple[Any, ...], line: str
) -> None:
    lines.log.info(text, *arguments)
    ((level, taken),) = lines.taken
    assert level == "info"
    assert taken.startswith(line)
    assert taken == line or line.endswith("TypeError: ")


def test_more_lines_than_allowed_are_counted(lines: Lines) -> None:
    for number in range(BURST + 5):
        lines.log.warning("%d", number)
    assert [line for _, line in lines.taken] == [str(number) for number in range(BURST)]
    lines.log._flush()
    assert len(lines.taken) == BURST
    lines.now = 0.5
    lines.log._flush()
    assert lines.taken[BURST:] == [("warning", "5 lines of this plugin were left out: too many")]
    lines.now = 100.0
    lines.log._flush()
    lines.log.error("again")
    assert lines.taken[BURST + 1 :] == [("error", "again")]


def test_lines_that_cannot_be_written_are_counted(lines: Lines) -> None:
    lines.ready = False
    lines.log.info("lost")
    lines.ready = True
    lines.log.info("there")
    told = [("warning", "1 line of this plugin were left out: too many"), ("info", "there")]
    assert [(level, line.replace("was", "were")) for level, line in lines.taken] == told


def test_a_supervisor_that_does_not_read_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        monkeypatch.setenv(ENVIRONMENT, str(theirs.detach()))
        channel = Channel()
        sent = 0
        while channel.try_send({"event": "log", "level": "info", "line": "x" * 500}):
            sent += 1
        assert sent > 10
        ours.recv(1 << 16)
        assert channel.try_send({"event": "log", "level": "info", "line": "y"})
    assert not channel.try_send({"event": "log", "level": "info", "line": "z"}), "it is gone"
    channel._socket.close()


def test_a_worker_sends_its_lines_at_once(worker: WorkerHarness, plugin_file: Any) -> None:
    worker.serve(plugin_file(PLUGIN) + ":Talks")
    assert {"event": "log", "level": "info", "line": "limit is 7"} in worker.events
    worker.put([b"ab" * 30])
    worker.take(1)
    assert worker.event("log")["line"] == "frame b'ab'"
    worker.stop()


def test_testing_has_all_lines(plugin_file: Any) -> None:
    run = run_plugin(plugin_file(PLUGIN) + ":Talks", [b"ab" * 30] * 100)
    assert run.log[0] == ("info", "limit is 7")
    assert run.log[1:101] == [("warning", "frame b'ab'")] * 100
    assert run.log[101:] == [("error", r"a\x1b[31m\nline")]


def test_check_writes_them_to_standard_error(
    plugin_file: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = plugin_file(PLUGIN) + ":Talks"
    assert check(spec, {}, ["wan"]) == []
    errors = capfd.readouterr().err
    assert f"plugin {spec}: info: limit is 7\n" in errors
    assert "lines of this plugin were left out: too many" in errors


def test_check_gives_the_plugin_the_blanks_of_its_worker(
    plugin_file: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = plugin_file(CREATES) + ":Creates"
    assert check(spec, {}, ["wan"], blanks=64) == []
    assert "no blank" not in capfd.readouterr().err
    assert check(spec, {}, ["wan"]) == []
    assert f"plugin {spec}: warning: no blank\n" in capfd.readouterr().err


def test_a_rehearsal_writes_nothing() -> None:
    Log().error("nobody hears this")
