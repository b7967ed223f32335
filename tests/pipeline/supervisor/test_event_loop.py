"""Promises of the supervisor's event loop."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from ringline.pipeline.supervisor.event_loop import Loop


def test_what_was_forgotten_in_this_turn_is_not_called() -> None:
    """Also when another file has its number by now."""
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


def test_signals_come_in_order_with_everything_else() -> None:
    heard: list[signal.Signals] = []
    with Loop() as loop:
        loop.on_signal(heard.append)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == [], "a handler did something by itself"
        while len(heard) < 2:
            loop.turn([time.monotonic() + 10])
    assert set(heard) == {signal.SIGTERM, signal.SIGINT}


@pytest.mark.parametrize("last", [False, True])
def test_signals_are_given_back_unless_the_process_ends(last: bool) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Loop(last=last):
            pass
        restored = {number: signal.getsignal(number) for number in before}
        assert (restored == before) == (not last)
        if last:
            os.kill(os.getpid(), signal.SIGTERM)  # does not end us, nor raises
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
