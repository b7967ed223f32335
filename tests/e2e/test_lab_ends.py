"""However a laboratory ends, nothing of it is left: no process, namespace, link or program."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import time

import pytest

from .lab_harness import Lab, needs_lab, running, wait_until
from .operator_harness import TIMEOUT, Operator, processes

# The command leaves a process behind that has its own session.
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
COMMAND = "setsid sleep 1000 & sleep 1000; exit 3"

BAD = """
class Bad:
    def setup(self, worker):
        1 / 0

    def process(self, batch):
        pass
"""


def proof(*cases: object) -> object:
    """Cases that only `make proof` tries."""
    mark = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1, since it takes long")
    return pytest.param(*cases, marks=mark)


@pytest.fixture(autouse=True)
def _possible() -> None:
    needs_lab()


def victim(lab: Lab, who: str) -> int:
    if who == "holder":
        return lab.process.pid
    if who == "instance":
        return lab.instance
    if who == "command":
        return lab.children(lab.process.pid)[1]
    return lab.named(who)


@pytest.mark.parametrize(
    ("who", "name", "code"),
    [
        ("holder", "SIGTERM", 128 + signal.SIGTERM),
        proof("holder", "SIGINT", 128 + signal.SIGINT),
        proof("holder", "SIGHUP", 128 + signal.SIGHUP),
        ("holder", "SIGKILL", -signal.SIGKILL),
        ("instance", "SIGKILL", 4),
        proof("instance", "SIGTERM", 128 + signal.SIGKILL),
        ("driver", "SIGKILL", 4),
        ("command", "SIGKILL", 128 + signal.SIGKILL),
        proof("command", "SIGTERM", 128 + signal.SIGTERM),
    ],
)
def test_nothing_is_left_however_it_ends(
    operator: Operator, who: str, name: str, code: int
) -> None:
    """With a command: it ends too, and what it left behind."""
    with running(operator, "--exec", COMMAND) as lab:
        os.kill(victim(lab, who), getattr(signal, name))
        lab.process.wait(TIMEOUT)
    assert lab.process.returncode == code


@pytest.mark.parametrize(
    ("who", "name", "code"),
    [
        proof("holder", "SIGTERM", 0),
        ("holder", "SIGHUP", 128 + signal.SIGHUP),
        ("holder", "SIGKILL", -signal.SIGKILL),
        proof("instance", "SIGKILL", 4),
    ],
)
def test_nothing_is_left_of_one_without_a_command(
    operator: Operator, who: str, name: str, code: int
) -> None:
    with running(operator) as lab:
        os.kill(victim(lab, who), getattr(signal, name))
    assert lab.process.returncode == code


def test_a_killed_worker_is_replaced(operator: Operator) -> None:
    """The laboratory goes on."""
    command = "until test -e go; do sleep 0.1; done; ping -c 1 -W 30 $RINGLINE_PEER"
    with running(operator, "--exec", command) as lab:
        os.kill(lab.named("worker"), signal.SIGKILL)
        (operator.folder / "go").touch()
    assert lab.process.returncode == 0


@pytest.mark.parametrize(
    ("command", "end"),
    [(True, "ctrl-c"), (False, "ctrl-c"), (False, "closed"), proof(True, "closed")],
)
def test_a_terminal_ends_it(operator: Operator, command: bool, end: str) -> None:
    """By Ctrl-C, which reaches the command, or when it is closed."""
    master, terminal = pty.openpty()
    arguments = ["--exec", COMMAND] if command else []
    with running(
        operator,
        *arguments,
        within=["setsid", "--ctty", "--wait"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as lab:
        os.close(terminal)
        if end == "ctrl-c":
            while lab.process.poll() is None:  # a shell that is about to fork misses one
                os.write(master, b"\x03")
                _drain(master)
        else:
            os.close(master)
    if end == "ctrl-c":
        os.close(master)
        assert lab.process.returncode == (128 + signal.SIGINT if command else 0)


def _drain(master: int) -> None:
    """Read what is written to the terminal for a second."""
    os.set_blocking(master, False)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            os.read(master, 1 << 16)
        time.sleep(0.05)


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_one_that_is_killed_during_its_start_leaves_nothing(
    operator: Operator, seconds: float
) -> None:
    with operator.started(
        "lab", "--name", operator.name, "--exec", "sleep 1000", environment={"LAB": operator.name}
    ) as process:
        time.sleep(seconds)
        process.kill()
        process.wait(TIMEOUT)
        wait_until(lambda: not _marked(operator.name), "the end of all processes")


def _marked(name: str) -> list[str]:
    found = subprocess.run(
        ["grep", "-lsz", f"^LAB={name}$", "-r", "/proc", "--include=environ"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


def test_an_error_leaves_nothing(operator: Operator) -> None:
    """The plugin fails before packets flow: the command does not run."""
    operator.write(BAD, "bad.py")
    said = operator.run("lab", "./bad.py:Bad", "--exec", "touch ran", other_output=True)
    assert said.code == 2
    assert "division by zero" in said.errors
    assert not (operator.folder / "ran").exists()
    assert not processes(operator.name)
