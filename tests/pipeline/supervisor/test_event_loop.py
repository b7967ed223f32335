"""Guarantees of the supervisor's event loop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from ringline.pipeline.supervisor.event_loop import Loop


def test_a_forgotten_descriptor_is_not_served() -> None:
    """Even if another file has its number now."""
    one, other = socket.socketpair()
    third, fourth = socket.socketpair()
    called: list[str] = []
    with Loop() as loop:

        def first(name: str, victim: socket.socket) -> None:
            if not called:
                number = victim.fileno()
                loop.forget(number)
                os.dup2(third.fileno(), number)
                loop.watch(number, lambda: called.append("successor"))
            called.append(name)

        loop.watch(one.fileno(), lambda: first("one", other))
        loop.watch(other.fileno(), lambda: first("other", one))
        one.send(b"x")
        other.send(b"x")
        loop.turn([None])
        assert len(called) == 1, "called after it was forgotten, or in place of another"
        assert called[0] in ("one", "other")
    for end in (one, other, third, fourth):
        end.close()


def test_it_waits_for_the_first_deadline() -> None:
    with Loop() as loop:
        start = time.monotonic()
        loop.turn([start + 600.0, None, start + 0.05])
        assert time.monotonic() - start >= 0.05
        loop.turn([start])


def test_a_turn_tells_for_how_long_this_process_was_stopped() -> None:
    with Loop() as loop:
        stopper = subprocess.Popen(
            [
                "sh",
                "-c",
                f"sleep 0.1; kill -STOP {os.getpid()}; sleep 0.5; kill -CONT {os.getpid()}",
            ]
        )
        try:
            late = loop.turn([time.monotonic() + 0.2])
        finally:
            stopper.wait(30)
        assert late > 0.2


def test_signals_come_in_order_with_everything_else() -> None:
    received: list[int] = []
    with Loop() as loop:
        loop.on_signal(received.append)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [], "the signal was handled outside the loop"
        while len(received) < 2:
            loop.turn([time.monotonic() + 10])
    assert set(received) == {signal.SIGTERM, signal.SIGINT}


@pytest.mark.parametrize("ignored", [False, True])
def test_signal_handlers_are_restored_or_signals_ignored(ignored: bool) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Loop(ignore_signals_after=ignored):
            pass
        restored = {number: signal.getsignal(number) for number in before}
        assert (restored == before) == (not ignored)
        if ignored:
            os.kill(os.getpid(), signal.SIGTERM)  # neither ends this process nor raises
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
