"""The progress bar: drawn only in a terminal, and removed at its end."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from ringline.pipeline.terminal import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_a_terminal_shows_the_bar_until_it_is_closed(terminal: Terminal) -> None:
    bar = progress.Progress("zoom.pcap")
    for done in (0, 350, 700, 800):
        bar.show(done, 700)
    bar.close()
    drawn = terminal.getvalue().split("\r")[1:]
    assert [text.rsplit("] ")[1] for text in drawn[:-1]] == ["  0 %", " 50 %", "100 %", "100 %"]
    assert drawn[1].count("#") == drawn[1].count(".") - 1 == progress.WIDTH // 2  # a dot of .pcap
    assert drawn[-1] == "\x1b[2K"


def test_a_total_of_zero_is_no_error(terminal: Terminal) -> None:
    bar = progress.Progress("empty.pcap")
    bar.show(0, 0)
    bar.close()
    bar.close()
    assert terminal.getvalue().count("\x1b[2K") == 1


def test_nothing_is_drawn_outside_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    progress.Progress("x").show(1, 2)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    progress.Progress("x").show(1, 2)
    assert terminal.getvalue() == ""


def test_a_shorter_label_leaves_nothing_of_a_longer_one(terminal: Terminal) -> None:
    bar = progress.Progress("bench pipeline")
    bar.show(0, 2)
    bar.label = "bench tx"
    bar.show(1, 2)
    assert terminal.getvalue().split("\r")[2].startswith("\x1b[Kbench tx [")
