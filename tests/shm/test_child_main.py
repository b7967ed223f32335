"""Guarantees of the main function of the driver and of a card process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.shm.control import ENVIRONMENT, Control, Message
from ringline.shm.signals import IGNORED_BY_CHILDREN

TIMEOUT = 30.0  # seconds
PROGRAM = """
import sys
from ringline.shm.child_main import run_child
from ringline.shm.control import Closed, Control
from ringline.shm.errors import HardwareError
def serve(supervisor):
    {}
sys.exit(run_child(serve))
"""


class ServedChild:
    """A process whose main function is `run_child`."""

    def __init__(self, body: str) -> None:
        self.control, theirs = Control.pair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(body)],
                env={**os.environ, ENVIRONMENT: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
            )

    def receive(self) -> Message:
        received = self.control.receive(TIMEOUT)
        assert received is not None, "the child sent nothing"
        return received[0]

    def close(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()


Start = Callable[[str], ServedChild]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[ServedChild] = []

    def start_(body: str) -> ServedChild:
        children.append(ServedChild(body))
        return children[-1]

    yield start_
    for child in children:
        child.close()


def test_a_child_that_returns_exits_with_0(start: Start) -> None:
    child = start("supervisor.send({'event': 'ready'})")
    assert child.receive() == {"event": "ready"}
    assert child.process.wait(TIMEOUT) == 0


def test_an_error_is_sent_and_decides_the_exit_code(start: Start) -> None:
    child = start("raise HardwareError('port wan: no link')")
    error = {"type": "HardwareError", "message": "port wan: no link"}
    assert child.receive() == {"event": "failed", "error": error}
    assert child.process.wait(TIMEOUT) == 3


def test_an_error_without_a_supervisor_still_decides_the_exit_code(start: Start) -> None:
    child = start("supervisor.receive(30); raise HardwareError('x')")
    child.control.send({})
    child.control.close()
    assert child.process.wait(TIMEOUT) == 3


def test_signals_for_the_supervisor_are_ignored(start: Start) -> None:
    child = start("supervisor.send({'event': 'ready'}); supervisor.receive(30)")
    child.receive()
    for number in set(IGNORED_BY_CHILDREN) - {signal.SIGTERM}:  # this one ends a driver in order
        child.process.send_signal(number)
    child.control.send({})
    assert child.process.wait(TIMEOUT) == 0


def test_a_stopped_child_sees_the_end_of_its_supervisor() -> None:
    """The supervisor is a process of its own here, which is killed."""
    body = (
        "import os\n"
        "    print(os.getpid(), flush=True)\n"
        "    try: supervisor.receive(600)\n"
        "    except Closed: print('closed', flush=True)"
    )
    supervisor = f"""
import os, subprocess, sys, time
from ringline.shm.control import ENVIRONMENT, Control
ours, theirs = Control.pair()
subprocess.Popen(
    [sys.executable, "-c", {PROGRAM.format(body)!r}],
    env={{**os.environ, ENVIRONMENT: str(theirs.fileno())}},
    pass_fds=[theirs.fileno()],
)
theirs.close()
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGSTOP)
            until = time.monotonic() + TIMEOUT
            while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < until, "the child was not stopped"
                time.sleep(0.001)
            parent.kill()
            assert select.select([child], [], [], TIMEOUT)[0], "the child did not end"
            assert parent.stdout.read() == b"closed\n"
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)
            os.close(child)
            parent.kill()
