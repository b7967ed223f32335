"""The supervisor's event loop: descriptors, signals and a time to wake up at. One thread.

A signal handler does nothing: the interpreter writes the signal's number to a
socket that the loop watches, so a signal is an event in order with all others.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The interpreter's own wake-up does the work."""


class Service(Protocol):
    """Something with a descriptor that is served in a loop."""

    def fileno(self) -> int:
        """Readable when `turn` has work."""

    @property
    def deadline(self) -> float | None:
        """When `turn` has work at the latest."""

    def turn(self) -> None:
        """Do what can be done without waiting."""

    def close(self) -> None:
        """Serve no more."""


class Loop:
    """A context manager: from enter to exit the signals of SIGNALS come here.

    One that was ignored at the start (nohup) stays ignored. Must be entered in
    the main thread. `last`: the process ends soon after; signals that come then
    are too late to mean anything, and must not cut off its last words.
    """

    def __init__(self, *, last: bool = False) -> None:
        self._last = last
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[signal.Signals, Any] = {}
        self._on_signal: Callable[[signal.Signals], None] = lambda number: None
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._old_wakeup = -1

    def on_signal(self, callback: Callable[[signal.Signals], None]) -> None:
        """Call this with every signal."""
        self._on_signal = callback

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; fine if it was not watched. Before it is closed."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def turn(self, deadlines: Sequence[float | None]) -> None:
        """Wait for the first event or the first of `deadlines` (time.monotonic()), and
        call the callbacks of all events that are there. One that an earlier one of
        this turn made the loop forget is not called."""
        due = min((deadline for deadline in deadlines if deadline is not None), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        for key, _ in self._selector.select(wait):
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _signals(self) -> None:
        assert self._wakeup is not None
        for number in self._wakeup[0].recv(256):
            if number in self._handlers:
                self._on_signal(signal.Signals(number))

    def __enter__(self) -> Loop:
        read, write = socket.socketpair()
        read.setblocking(False)
        write.setblocking(False)
        self._wakeup = read, write
        self._old_wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, _nothing)
        self.watch(read.fileno(), self._signals)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            # Python takes its own handlers away at its end, and then a signal would kill.
            signal.signal(number, signal.SIG_IGN if self._last else handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self._selector.close()
        assert self._wakeup is not None
        for end in self._wakeup:
            end.close()
