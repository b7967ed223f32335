"""`ringline bench`: what it leaves in a terminal when it is interrupted."""

from __future__ import annotations

import argparse
import io
from types import SimpleNamespace

import pytest

from ringline.pipeline.bench import command, machine
from ringline.pipeline.bench.measurements import handoff
from ringline.pipeline.terminal import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("kind", "shown"), [("xterm", "\r\x1b[Kbench handoff [..."), ("dumb", "")])
def test_an_interrupted_benchmark_leaves_an_empty_line(
    monkeypatch: pytest.MonkeyPatch, kind: str, shown: str
) -> None:
    def interrupted(host: object, runs: int) -> None:
        raise KeyboardInterrupt

    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setattr(command.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(machine, "measure_machine", lambda cpus: None)
    monkeypatch.setattr(machine, "choose_cpus", lambda cpus: (0, 1))
    monkeypatch.setattr(handoff, "measure", interrupted)
    monkeypatch.setenv("TERM", kind)
    given = argparse.Namespace(what=["handoff"], json=False, runs=1, seconds=1.0, cpus=None)
    with pytest.raises(KeyboardInterrupt):
        command.measure(given)
    assert terminal.getvalue().startswith(shown)
    assert terminal.getvalue().endswith("\r\x1b[2K" if shown else "")
    assert bool(terminal.getvalue()) == bool(shown)
