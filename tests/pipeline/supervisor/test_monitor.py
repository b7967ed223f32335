"""Guarantees of all monitors."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest

from ringline.pipeline.supervisor.event_loop import Loop
from ringline.pipeline.supervisor.monitor import Monitor, RunContext
from ringline.shm.control import Message

PROGRAM = """
import sys
from ringline.shm.control import Control
control = Control.from_environment()
{}
"""


class RecordingMonitor(Monitor):
    """Records the messages and the exit of its child."""

    def __init__(self, loop: Loop, program: str, announced: list[str]) -> None:
        nothing = cast(Any, None)
        context = RunContext(
            config=nothing,
            loop=loop,
            instance=nothing,
            places={},
            announce=announced.append,
            end_now=nothing,
            drain_and_end=nothing,
        )
        super().__init__(context, "child", [sys.executable, "-c", PROGRAM.format(program)])
        self.messages: list[Message] = []
        self.exit_reason = ""

    def on_message(self, event: str, message: Message) -> None:
        self.messages.append(message)

    def on_exit(self, reason: str) -> None:
        assert self.child is None
        self.exit_reason = reason

    def wait_for_exit(self) -> None:
        assert self.child is not None
        assert select.select([self.child.pidfd], [], [], 30)[0], "the child did not end"


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def test_messages_are_handled_before_the_exit(loop: Loop) -> None:
    """Even if there are many, and the child ended before the loop read any of them."""
    monitor = RecordingMonitor(
        loop, "for n in range(150): control.send({'event': n})\nsys.exit(3)", []
    )
    monitor.spawn()
    monitor.wait_for_exit()
    while not monitor.exit_reason:
        loop.turn([None])
    assert [message["event"] for message in monitor.messages] == list(range(150))
    assert monitor.exit_reason == "exited with status 3"


def test_descriptors_that_a_child_sends_are_closed(loop: Loop) -> None:
    program = "for n in range(3): control.send({'event': n}, [0, 1, 2])\n"
    before = len(os.listdir("/proc/self/fd"))
    monitor = RecordingMonitor(loop, program, [])
    monitor.spawn()
    monitor.wait_for_exit()
    while not monitor.exit_reason:
        loop.turn([None])
    assert len(monitor.messages) == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_child_that_sends_without_end_does_not_block_the_loop(loop: Loop) -> None:
    monitor = RecordingMonitor(loop, "while True: control.send({'event': 'more'})", [])
    monitor.spawn()
    for turn in range(1, 6):
        loop.turn([None])
        assert len(monitor.messages) <= 16 * turn
    monitor.shut_down(0.0)
    assert monitor.child is None


def test_garbage_ends_the_child(loop: Loop) -> None:
    announced: list[str] = []
    monitor = RecordingMonitor(
        loop, "control._socket.send(b'.{'); import time; time.sleep(600)", announced
    )
    monitor.spawn()
    while not monitor.exit_reason:
        loop.turn([None])
    assert monitor.exit_reason == "was ended by SIGKILL"
    assert announced == ["child: a control message is not a JSON object: b'{'; it is killed"]
