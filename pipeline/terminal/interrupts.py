"""Ctrl-C while a command imports its modules or does what must not be left half done, and other
signals that do what Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def fatal() -> Iterator[None]:
    """SIGINT ends the process inside the block, which does nothing that must be cleaned up.

    Python raises KeyboardInterrupt wherever it is, and loses it in a callback of its import
    system: then the command would go on. A handler that is no default one stays.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def like_ctrl_c(*numbers: int) -> Iterator[list[int]]:
    """Inside the block, each of these signals raises KeyboardInterrupt; yields a list of those that
    came. A signal that is ignored, as by nohup, stays so."""
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, interrupt)
        yield came
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextlib.contextmanager
def held(*numbers: int) -> Iterator[None]:
    """Inside the block, these signals do nothing yet: one that came does it at the end. Only in
    the main thread."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in numbers}
    handled = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in handled:
            signal.signal(number, lambda it, _: came.append(it))
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)
