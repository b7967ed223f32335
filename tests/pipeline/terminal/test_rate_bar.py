"""The progress of an analysis: in terminals of any width, and outside of one."""

from __future__ import annotations

import io
import os
from types import SimpleNamespace

import pytest

from ringline.pipeline.terminal import rate_bar
from ringline.pipeline.terminal.rate_bar import RateBar, clock, fitting

DETAILS = ["0:45 left", "340 MB/s", "1.20 M packets/s"]


class Stream(io.StringIO):
    terminal = True

    def isatty(self) -> bool:
        return self.terminal


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(rate_bar, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setenv("TERM", "xterm")
    return stream


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    time = Clock()
    monkeypatch.setattr(rate_bar, "time", time)
    return time


def test_a_terminal_shows_share_rates_and_the_time_left(stream: Stream, time: Clock) -> None:
    bar = RateBar("analyze")
    bar.show(0, 4_000_000_000, 0)
    time.now += 10
    bar.show(1_000_000_000, 4_000_000_000, 5_000_000)
    bar.close()
    bar.close()
    first, second, last = stream.getvalue().split("\r")[1:]
    assert first == f"\x1b[Kanalyze [{'.' * 30}]   0 %"
    bar_text = f"[{'#' * 5}{'.' * 15}]"
    assert second == f"\x1b[Kanalyze {bar_text}  25 %, 0:30 left, 100 MB/s, 0.50 M packets/s"
    assert last == "\x1b[2K"


def test_what_was_done_before_is_no_rate(stream: Stream, time: Clock) -> None:
    bar = RateBar("analyze")
    time.now += 7
    bar.show(800, 1000, 8_000_000)
    time.now += 10
    bar.show(800, 1000, 8_000_000)
    bar.show(900, 1000, 9_000_000)  # too soon
    time.now += 10
    bar.show(900, 1000, 9_000_000)
    drawn = stream.getvalue().split("\r")[1:]
    assert [text.split("] ")[1] for text in drawn[:2]] == [" 80 %"] * 2
    assert drawn[2].split("] ")[1] == " 90 %, 0:20 left, 0.0 MB/s, 50,000 packets/s"


@pytest.mark.parametrize("kind", ["no terminal", "dumb"])
def test_outside_a_terminal_a_line_comes_now_and_then(
    kind: str, stream: Stream, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "terminal", kind == "dumb")
    if kind == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    bar = RateBar("analyze")
    for second in range(100):
        bar.show(second * 10_000_000, 1_000_000_000, second * 100_000)
        time.now += 1
    bar.close()
    assert stream.getvalue().splitlines() == [
        "analyze: 30 %, 1:10 left, 10 MB/s, 0.10 M packets/s",
        "analyze: 60 %, 0:40 left, 10 MB/s, 0.10 M packets/s",
        "analyze: 90 %, 0:10 left, 10 MB/s, 0.10 M packets/s",
    ]


def test_a_short_analysis_prints_nothing_outside_a_terminal(stream: Stream, time: Clock) -> None:
    stream.terminal = False
    bar = RateBar("analyze")
    bar.show(0, 0, 0)
    time.now += 29
    bar.show(1, 1, 1)
    bar.close()
    assert stream.getvalue() == ""


def test_a_line_fits_into_any_width() -> None:
    lengths = {len(fitting("analyze", 0.5, " 50 %", DETAILS, width)) for width in range(200)}
    for width in range(2, 200):
        text = fitting("analyze", 0.5, " 50 %", DETAILS, width)
        assert len(text) < width
        assert text.startswith("analyze") or width < 14
    assert len(lengths) > 6
    assert fitting("analyze", 0.5, " 50 %", DETAILS, 14) == "analyze  50 %"
    assert fitting("analyze", 0.5, " 50 %", DETAILS, 30) == "analyze  50 %, 0:45 left"
    assert fitting("analyze", 0.5, " 50 %", DETAILS, 60).endswith(
        "] " + " 50 %, 0:45 left, 340 MB/s"
    )
    assert fitting("analyze", 1.0, "100 %", [], 5) == "100 "


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (75, "1:15"), (3723, "1:02:03"), (172_799, "47:59:59"), (277_200, "3 d 5 h")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_reader_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, time: Clock) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115  # closed below
    monkeypatch.setattr(rate_bar, "sys", SimpleNamespace(stderr=full))
    monkeypatch.setattr(os, "environ", {"TERM": "dumb"})
    bar = RateBar("analyze")
    time.now += 60
    bar.show(1, 2, 3)
    bar.close()
    with pytest.raises(OSError, match="No space"):
        full.close()
