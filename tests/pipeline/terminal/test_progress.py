"""The bar of a long command: only where somebody looks, and gone at its end."""

from __future__ import annotations

import argparse
import io
from types import SimpleNamespace

import pytest

from ringline.pipeline import bench
from ringline.pipeline.bench import handoff, machine
from ringline.pipeline.terminal import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_a_terminal_sees_how_far_it_is_and_then_nothing(terminal: Terminal) -> None:
    bar = progress.Progress("zoom.pcap")
    for done in (0, 350, 700, 800):
        bar.show(done, 700)
    bar.close()
    drawn = terminal.getvalue().split("\r")[1:]
    assert [text.rsplit("] ")[1] for text in drawn[:-1]] == ["  0 %", " 50 %", "100 %", "100 %"]
    assert drawn[1].count("#") == drawn[1].count(".") - 1 == progress.WIDTH // 2  # a dot of .pcap
    assert drawn[-1] == "\x1b[2K"


def test_nothing_to_do_is_no_error(terminal: Terminal) -> None:
    bar = progress.Progress("empty.pcap")
    bar.show(0, 0)
    bar.close()
    bar.close()
    assert terminal.getvalue().count("\x1b[2K") == 1


def test_no_terminal_sees_nothing(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    monkeypatch.setenv("TERM", "dumb")
    progress.Progress("x").show(1, 2)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    progress.Progress("x").show(1, 2)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(("kind", "shown"), [("xterm", "\r\x1b[K[1/1] handoff"), ("dumb", "")])
def test_a_benchmark_that_is_ended_leaves_an_empty_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, kind: str, shown: str
) -> None:
    def interrupted(at: object, runs: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.sys, "stderr", terminal)
    monkeypatch.setattr(bench.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(machine, "look", lambda cpus: None)
    monkeypatch.setattr(machine, "choose_cpus", lambda cpus: (0, 1))
    monkeypatch.setattr(handoff, "measure", interrupted)
    monkeypatch.setenv("TERM", kind)
    given = argparse.Namespace(what=["handoff"], json=False, runs=1, seconds=1.0, cpus=None)
    with pytest.raises(KeyboardInterrupt):
        bench.main(given)
    assert terminal.getvalue().startswith(shown)
    assert terminal.getvalue().endswith("\r\x1b[K" if shown else "")
    assert bool(terminal.getvalue()) == bool(shown)
