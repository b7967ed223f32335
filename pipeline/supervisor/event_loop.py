"""The supervisor's event loop: descriptors, signals and deadlines, in one thread.

A signal handler itself does nothing: the interpreter writes the number of the signal to a
socket that the loop watches. So a signal is handled in turn with all other events.

Guarantees (tests in tests/pipeline/supervisor/test_event_loop.py):
 - a callback is not called after its descriptor was forgotten, even if the number is in use
   again (test_a_forgotten_descriptor_is_not_served)
 - the loop waits no longer than the first deadline (test_it_waits_for_the_first_deadline)
 - signals are handled in the loop (test_signals_come_in_order_with_everything_else)
 - the old signal handlers are restored on leaving
   (test_signal_handlers_are_restored_or_signals_ignored)
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol

from ringline.shm import signals

SIGNALS = (*signals.ENDING, *signals.ASKING)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler must exist, or the signal would end the process."""


class Service(Protocol):
    """Something with a descriptor that the loop serves."""

    def fileno(self) -> int:
        """The descriptor; readable when `turn` has work."""

    @property
    def deadline(self) -> float | None:
        """When `turn` must be called at the latest (time.monotonic()); None: no limit."""

    def turn(self) -> None:
        """Do the work that needs no waiting."""

    def close(self) -> None:
        """Release everything; no other method is called afterwards."""


class Loop:
    """A context manager: inside it the loop handles the signals of SIGNALS.

    A signal that is ignored on entry (nohup) stays ignored. Enter it in the main thread.
    With `ignore_signals_after` the signals are ignored after leaving: for a process that
    then only prints its report, which a signal must not cut off.
    """

    def __init__(self, *, ignore_signals_after: bool = False) -> None:
        self._ignore_signals_after = ignore_signals_after
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[int, Any] = {}
        self._on_signal: Callable[[int], None] = lambda number: None
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._old_wakeup = -1

    def on_signal(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with every signal."""
        self._on_signal = callback

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed. Nothing happens if it is not watched."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def turn(self, deadlines: Sequence[float | None]) -> float:
        """Wait for the first event or the first of `deadlines` (time.monotonic()), then
        call the callbacks of all events. If a callback makes the loop forget a descriptor,
        the callback of that descriptor is not called.

        Returns for how many seconds this process did not run when it should have: the whole
        machine was stopped, or this process was, or it got no CPU."""
        due = min((deadline for deadline in deadlines if deadline is not None), default=None)
        start = time.monotonic()
        wait = None if due is None else max(0.0, due - start)
        ready = self._selector.select(wait)
        late = 0.0 if wait is None else max(0.0, time.monotonic() - start - wait)
        for key, _ in ready:
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        return late

    def _signals(self) -> None:
        assert self._wakeup is not None
        for number in self._wakeup[0].recv(256):
            if number in self._handlers:
                self._on_signal(number)

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
            # Python removes its own handlers when it exits; a signal would then kill it.
            signal.signal(number, signal.SIG_IGN if self._ignore_signals_after else handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self._selector.close()
        assert self._wakeup is not None
        for end in self._wakeup:
            end.close()
