"""Guarantees of child processes, tested with small fake programs."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.supervisor.child import Child, exit_reason
from ringline.shm.errors import EnvironmentLacks

Start = Callable[[str], Child]

PREAMBLE = "import os, signal, sys, time\nfrom ringline.shm.control import Control\n"


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def start_(program: str) -> Child:
        child = Child("fake", [sys.executable, "-c", PREAMBLE + program], os.environ)
        children.append(child)
        return child

    yield start_
    for child in children:
        if child.control.fileno() >= 0:
            child.shut_down(0)


def wait_for_exit(child: Child) -> None:
    readable, _, _ = select.select([child.pidfd], [], [], 30)
    assert readable, "the child did not end"


def answer(child: Child) -> dict[str, object]:
    received = child.control.receive(30)
    assert received is not None, "the child said nothing"
    return received[0]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sys.exit(3)", "exited with status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("os.abort()", "was ended by SIGABRT"),
        ("pass", "exited with status 0"),
    ],
)
def test_exit_is_reported_with_its_reason(start: Start, program: str, reason: str) -> None:
    child = start(program)
    wait_for_exit(child)
    assert child.reap() == reason


def test_signals_without_a_name_are_reported_too() -> None:
    assert exit_reason(-64) == "was ended by SIGRTMAX"
    assert exit_reason(-50) == "was ended by signal 50"


def test_processes_that_a_child_started_end_with_it(start: Start) -> None:
    child = start(
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    time.sleep(600)\n"
        "Control.from_environment().send({'pid': pid})\n"
        "os._exit(1)\n"
    )
    left_behind = answer(child)["pid"]
    assert isinstance(left_behind, int)
    grandchild = os.pidfd_open(left_behind)
    wait_for_exit(child)
    child.reap()
    readable, _, _ = select.select([grandchild], [], [], 10)
    os.close(grandchild)
    assert readable, "a process that the child started still runs"


def test_nothing_but_the_control_socket_is_inherited(start: Start) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        child = start(
            "control = Control.from_environment()\n"
            "fds = [int(n) for n in os.listdir('/proc/self/fd')]\n"
            "open_ = [n for n in fds if os.path.exists(f'/proc/self/fd/{n}')]\n"
            "control.send({'fds': [n for n in open_ if n > 2 and n != control.fileno()],\n"
            "  'group': os.getpgid(0) == os.getpid(), 'in': os.readlink('/proc/self/fd/0')})\n"
        )
        said = answer(child)
    finally:
        os.close(read)
        os.close(write)
    assert said["group"], "keys pressed in a terminal would send it signals"
    assert said["in"] == "/dev/null"
    assert isinstance(said["fds"], list)
    assert said["fds"] == []


def test_a_child_stays_in_the_session(start: Start) -> None:
    child = start("Control.from_environment().send({'session': os.getsid(0)})\n")
    assert answer(child)["session"] == os.getsid(0)


def test_a_child_is_ended_by_its_closed_socket_or_by_sigkill(start: Start) -> None:
    listens = start("c = Control.from_environment()\ntry: c.receive(60)\nexcept Exception: pass\n")
    assert listens.shut_down(30) == "exited with status 0"
    assert start("time.sleep(600)").shut_down(0.1) == "was ended by SIGKILL"


def test_sending_to_a_child_that_is_gone_is_no_error(start: Start) -> None:
    child = start("pass")
    wait_for_exit(child)
    assert not child.send({"do": "stop"})
    child.signal(signal.SIGKILL)
    child.reap()


@pytest.mark.slow
def test_sending_to_a_child_that_never_reads_ends(start: Start) -> None:
    child = start("time.sleep(600)")
    begin = time.monotonic()
    while child.send({"do": "open", "config": {"x": "y" * 20_000}, "port": 0}):
        assert time.monotonic() - begin < 30
    assert not select.select([child.pidfd], [], [], 0)[0], "the child ended"


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(EnvironmentLacks, match=r"worker 1 could not be started.*No such file"):
        Child("worker 1", ["/nonexistent/python"], os.environ)
