"""Requested ends: two interrupts, a closed terminal, a closed output pipe, an ignored hangup."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from .run_harness import RunHarness, alive, check_counts, wait_until

pytestmark = pytest.mark.slow

# Makes standard input the controlling terminal of its session, then executes the command.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_a_second_interrupt_skips_no_part_of_the_end(start: Callable[..., RunHarness]) -> None:
    run = start()
    run.serving()
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    run.process.send_signal(signal.SIGINT)
    code, report = run.ended()
    assert code == 0, run.output
    check_counts(report)
    assert run.left() == []


def test_a_terminal_that_is_closed_ends_the_run_in_order(start: Callable[..., RunHarness]) -> None:
    """The children have sessions of their own: no hangup reaches them."""
    run = start(begin=False)
    ours, terminal = pty.openpty()

    run.process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *run.command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    os.set_blocking(ours, False)
    seen = b""

    def served() -> bool:
        nonlocal seen
        with contextlib.suppress(BlockingIOError):
            seen += os.read(ours, 65536)
        return b"pps" in seen

    wait_until(served, "the first rates")
    pids = [pid for pid, _ in run.children()]
    os.close(ours)
    code, report = run.ended()
    assert code == 128 + signal.SIGHUP
    check_counts(report)
    assert not any(alive(pid) for pid in pids)
    assert run.left() == []


def test_a_reader_that_goes_away_ends_the_run_in_order(start: Callable[..., RunHarness]) -> None:
    """As `ringline run | head -1` does."""
    run = start(begin=False)
    run.process = subprocess.Popen(run.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert run.process.stdout is not None
    assert b"_mpps=" in run.process.stdout.readline()
    run.process.stdout.close()
    code, report = run.ended()
    assert code == 0
    check_counts(report)
    assert run.left() == []


def test_an_ignored_hangup_does_not_end_the_run(start: Callable[..., RunHarness]) -> None:
    """As with nohup."""
    run = start(begin=False)
    run.process = subprocess.Popen(
        ["nohup", *run.command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    run.serving()
    run.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert run.process.poll() is None
    assert run.answer()["state"] == "running"
    code, report = run.end()
    assert code == 0
    check_counts(report)
