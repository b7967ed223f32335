"""Ctrl-C while a command imports its modules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ringline.pipeline.terminal.interrupts import fatal, held

# KeyboardInterrupt in a callback of a weak reference is printed and forgotten.
IN_A_CALLBACK = """
import os, signal, weakref
from ringline.pipeline.terminal.interrupts import fatal

class Thing:
    pass

def gone(_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

with fatal():
    thing = Thing()
    kept = weakref.ref(thing, gone)
    del thing
print("went on")
"""


def test_an_interrupt_in_a_callback_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGINT
    assert done.stdout == ""


def test_the_handler_is_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with fatal():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with fatal():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_held_comes_at_the_end_with_the_handler_of_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    done: list[str] = []
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), held(signal.SIGINT):
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all")
        assert done == ["all"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with held(signal.SIGINT):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
