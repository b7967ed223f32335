"""Every signal that people and programs send to a run."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.shm import signals

from .operator_harness import TIMEOUT, Operator
from .run_harness import RunHarness, check_counts, wait_until

pytestmark = pytest.mark.slow

# What `kill` can name; real-time signals are represented by one that systemd uses.
SENT = (
    *("SIGHUP", "SIGINT", "SIGQUIT", "SIGALRM", "SIGTERM", "SIGVTALRM", "SIGPROF", "SIGPWR"),
    *("SIGXCPU", "SIGSTKFLT", "SIGRTMIN"),
)
GIVEN = (*SENT, "SIGUSR1", "SIGUSR2", "SIGPOLL")


@pytest.mark.parametrize("name", GIVEN)
def test_a_signal_ends_the_run_in_order_or_is_refused(
    start: Callable[..., RunHarness], tmp_path: Path, name: str
) -> None:
    """To all processes, as `systemctl kill` sends it. Only SIGINT and SIGTERM end it with 0."""
    number = getattr(signal, name)
    run = start(begin=False)
    config = tmp_path / f"{run.name}.toml"  # on a busy machine a worker may be silent for long
    config.write_text(config.read_text().replace("[worker]", "[worker]\nsilence = 30"))
    run.start()
    before = run.serving()
    for pid in [pid for pid, _ in run.children()]:
        if name != "SIGTERM":  # to the supervisor alone: the unit has KillMode=mixed
            signal.pidfd_send_signal(pidfd(pid), number)
    run.process.send_signal(number)
    if name not in SENT:
        sentence = f"ringline: {signals.name_of(number)} is ignored"
        wait_until(lambda: sentence in run.output, "the refusal")
        assert run.serving()["started"] == before["started"]
        assert [worker["restarts"] for worker in run.answer()["workers"]] == [0, 0]
        code, report = run.end()
        assert (code, report["exit"]["reason"]) == (0, "all well")
    else:
        code, report = run.ended()
        assert code == (0 if name in ("SIGINT", "SIGTERM") else 128 + number), run.output
        assert report["exit"]["code"] == code
        assert code == 0 or f"ringline: {name} ended the run" in run.output
        assert code == 0 or f"ended by {name}" in run.output
    check_counts(report)
    assert run.left() == []


def test_the_first_signal_decides_the_exit_code(start: Callable[..., RunHarness]) -> None:
    run = start()
    run.serving()
    run.process.send_signal(signal.SIGTERM)
    wait_until(lambda: run.status().get("state") != "running", "the drain")
    run.process.send_signal(signal.SIGHUP)
    assert run.ended()[0] == 0


def test_every_signal_has_a_place() -> None:
    """A signal is handled, or it keeps its effect on purpose."""
    kept = {
        *("SIGKILL", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT", "SIGSEGV", "SIGBUS"),
        *("SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGCHLD", "SIGURG", "SIGWINCH"),
        *("SIGPIPE", "SIGXFSZ"),
    }
    handled = {*signals.ENDING, *signals.ASKING}
    assert {signals.name_of(number) for number in signal.valid_signals() - handled} == kept


def pidfd(pid: int) -> int:
    import os

    return os.pidfd_open(pid)


SLOW = """
import time
from pathlib import Path

class Slow:
    def setup(self, worker):
        Path("begun").touch()
        time.sleep(1000)

    def process(self, batch):
        pass
"""


def test_a_signal_before_the_workers_have_started_is_told(operator: Operator) -> None:
    """It is no run in which all was well. A restart of the machine is one cause."""
    operator.write(SLOW, "slow.py")
    report = operator.folder / "report.json"
    arguments = ["run", "./slow.py:Slow", "--queues", "1", "--name", operator.name]
    with operator.started(*arguments, "--report", report) as process:
        wait_until((operator.folder / "begun").exists, "the set-up")
        process.terminate()
        out, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert "ended before 1 worker had started" in out
    assert "all well" not in out
    assert json.loads(report.read_text())["exit"]["reason"] == "ended before 1 worker had started"
