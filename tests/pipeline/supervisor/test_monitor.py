"""Promises that hold for whoever keeps a child."""

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


class Notes(Monitor):
    """Notes all that it hears."""

    def __init__(self, loop: Loop, program: str, told: list[str]) -> None:
        nothing = cast(Any, None)
        context = RunContext(
            config=nothing,
            loop=loop,
            instance=nothing,
            places={},
            announce=told.append,
            fail=nothing,
            lack=nothing,
        )
        super().__init__(context, "child", [sys.executable, "-c", PROGRAM.format(program)])
        self.words: list[Message] = []
        self.end = ""

    def heard(self, what: str, message: Message) -> None:
        self.words.append(message)

    def ended(self, how: str) -> None:
        assert self.child is None
        self.end = how

    def wait_for_exit(self) -> None:
        assert self.child is not None
        assert select.select([self.child.pidfd], [], [], 30)[0], "it does not end"


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def test_last_words_are_heard_before_the_end(loop: Loop) -> None:
    """However many they are, and though it ended before anybody listened."""
    monitor = Notes(loop, "for n in range(150): control.send({'event': n})\nsys.exit(3)", [])
    monitor.spawn()
    monitor.wait_for_exit()
    while not monitor.end:
        loop.turn([None])
    assert [word["event"] for word in monitor.words] == list(range(150))
    assert monitor.end == "exited with status 3"


def test_descriptors_that_a_child_sends_are_closed(loop: Loop) -> None:
    program = "for n in range(3): control.send({'event': n}, [0, 1, 2])\n"
    before = len(os.listdir("/proc/self/fd"))
    monitor = Notes(loop, program, [])
    monitor.spawn()
    monitor.wait_for_exit()
    while not monitor.end:
        loop.turn([None])
    assert len(monitor.words) == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_child_that_talks_without_end_does_not_keep_the_loop(loop: Loop) -> None:
    monitor = Notes(loop, "while True: control.send({'event': 'more'})", [])
    monitor.spawn()
    for turn in range(1, 6):
        loop.turn([None])
        assert len(monitor.words) <= 16 * turn
    monitor.abandon(0.0)
    assert monitor.child is None


def test_what_is_no_message_ends_the_child(loop: Loop) -> None:
    told: list[str] = []
    monitor = Notes(loop, "control._socket.send(b'.{'); import time; time.sleep(600)", told)
    monitor.spawn()
    while not monitor.end:
        loop.turn([None])
    assert monitor.end == "was ended by SIGKILL"
    assert told == ["child: a control message is not a JSON object: b'{'; it is ended"]
