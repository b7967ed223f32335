"""Output that nobody reads: a full pipe, a stopped terminal. It costs lines and nothing else."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from .run_harness import (
    RunHarness,
    check_counts,
    kill_and_wait_for_successor,
    wait_until,
    wrong,
)

pytestmark = pytest.mark.slow

SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ
NOISY = """
import sys
class Noisy:
    def setup(self, worker): self.name = "x" * 3000
    def process(self, batch):
        print(self.name, file=sys.stderr)
        for packet in batch: packet.verdict = packet.port
"""


def full_pipe() -> tuple[int, int]:
    """A pipe of one page that is full and that nobody reads."""
    read, write = os.pipe()
    fcntl.fcntl(write, SET_PIPE_SIZE, 4096)
    os.write(write, b"x" * 4096)
    return read, write


@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_output_that_nobody_reads_stops_nothing(
    start: Callable[..., RunHarness], which: str
) -> None:
    """A worker is replaced, the status answers, SIGTERM ends the run."""
    run = start(begin=False)
    read, write = full_pipe()
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    streams |= {name: write for name in streams if which in (name, "both")}
    run.process = subprocess.Popen(run.command, **streams)
    os.close(write)
    kill_and_wait_for_successor(run, 1)
    code, report = run.end()
    assert code == 0
    assert wrong(report) == {}
    check_counts(report)
    assert run.left() == []
    os.close(read)


def test_a_child_does_not_wait_for_a_reader_either(
    start: Callable[..., RunHarness], tmp_path: Path
) -> None:
    """A worker that waited would look dead."""
    run = start(begin=False)
    (tmp_path / "noisy.py").write_text(NOISY)
    config = tmp_path / f"{run.name}.toml"
    config.write_text(config.read_text().replace('"forward"', '"./noisy.py:Noisy"'))
    read, write = full_pipe()
    run.process = subprocess.Popen(run.command, stdout=subprocess.DEVNULL, stderr=write)
    os.close(write)
    first = run.serving()["workers"][0]["counters"]["batches"]
    # 3 kB each: more than the pipe, the queue of the run and the pipe to it hold together.
    wait_until(
        lambda: run.answer()["workers"][0]["counters"]["batches"] > first + 1000, "1000 batches"
    )
    code, report = run.end()
    assert code == 0
    assert [worker["restarts"] for worker in report["workers"]] == [0, 0]
    os.close(read)


def test_a_terminal_that_was_stopped_gets_the_end_when_it_goes_on(
    start: Callable[..., RunHarness],
) -> None:
    run = start(begin=False)
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 120))
    run.process = subprocess.Popen(
        run.command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    seen: list[bytes] = []
    # Ctrl-S: the terminal takes nothing more.
    run.serving()
    termios.tcflow(terminal, termios.TCOOFF)
    kill_and_wait_for_successor(run, 0)
    run.process.send_signal(signal.SIGTERM)
    wait_until(lambda: run.status() == {}, "the end of the run")
    termios.tcflow(terminal, termios.TCOON)
    os.close(terminal)

    def read_all() -> None:
        try:
            while data := os.read(ours, 65536):
                seen.append(data)
        except OSError:
            pass  # EIO: the last process on the terminal has ended

    reader = threading.Thread(target=read_all)
    reader.start()
    code, report = run.ended()
    reader.join(30)
    assert code == 0
    check_counts(report)
    assert b"balance: 0 in all" in b"".join(seen)
    os.close(ours)
