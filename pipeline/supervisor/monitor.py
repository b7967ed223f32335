"""Monitors: each starts one child, receives its messages, and learns of its exit.

The tables (worker_states.py, run_states.py) decide what to do, the monitors do it, and the
supervisor runs the loop. This module holds what all monitors have in common.

Guarantees (tests in tests/pipeline/supervisor/test_monitor.py):
 - every message that a child sent before its exit is handled before its exit
   (test_messages_are_handled_before_the_exit)
 - descriptors that a child sends are closed (test_descriptors_that_a_child_sends_are_closed)
 - a child that sends without end does not block the loop
   (test_a_child_that_sends_without_end_does_not_block_the_loop)
 - a child that sends something other than a message is killed
   (test_garbage_ends_the_child)
 - what a child leaves behind is ended before its exit is handled
   (tests/shm/test_family.py: test_what_a_child_leaves_ends_with_it)
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.affinity import Place
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor.child import Child
from ringline.pipeline.supervisor.event_loop import Loop
from ringline.pipeline.supervisor.instance import Instance
from ringline.shm import errors
from ringline.shm.control import Closed, Garbled, Message
from ringline.shm.errors import RinglineError
from ringline.shm.family import MARK, Family
from ringline.shm.framing import MESSAGE_MAX
from ringline.shm.messages import ToChild
from ringline.workers.captures.capture_table import CaptureError

REMARKS_MAX = 32
MESSAGES_PER_TURN = 16
MESSAGES_AT_EXIT = 1000  # more than the buffer of a socket holds

# The errors that a child may report (`revive` in shm/control.py).
ERRORS: list[type[RinglineError]] = [CaptureError] + [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RinglineError) and kind is not RinglineError
]


@dataclass
class RunContext:
    """What all monitors of one run share."""

    config: Config
    loop: Loop
    instance: Instance
    places: Mapping[str, Place]  # by name of the child
    announce: Callable[[str], None]  # tell the operator a sentence
    end_now: Callable[[RinglineError], None]  # end the run for this reason, without a drain
    drain_and_end: Callable[[RinglineError], None]  # end the run for this reason, in order
    family: Family = field(default_factory=Family)
    remarked: set[str] = field(default_factory=set)  # remarks of workers that were announced

    def is_new(self, remark: str) -> bool:
        """Whether no worker of this run has made this remark yet: workers with the same
        plugin make the same remarks. Also False after REMARKS_MAX remarks."""
        if remark in self.remarked or len(self.remarked) >= REMARKS_MAX:
            return False
        self.remarked.add(remark)
        return True


class Monitor(ABC):
    """Starts and watches one child at a time."""

    message_max = MESSAGE_MAX  # bytes of one message of the child

    def __init__(self, context: RunContext, name: str, program: Sequence[str]) -> None:
        self.context = context
        self.name = name
        self.child: Child | None = None
        self._disconnected_at: float | None = None  # when its control socket was found closed
        self._program = program

    def spawn(self) -> None:
        """Start the program and watch it. Raises EnvironmentLacks if it cannot be started."""
        mark = self.context.family.mark()
        environment = {**self.environment(), MARK: mark}
        child = self.child = Child(self.name, self._program, environment)
        self.context.family.add(child.pid, mark)
        child.control.message_max = self.message_max
        self._disconnected_at = None
        self.context.loop.watch(child.pidfd, self._child_ended)
        self.context.loop.watch(child.control.fileno(), self._receive)

    def send(self, message: ToChild, descriptors: Sequence[int] = ()) -> None:
        """Send to the child; without a connected child nothing happens."""
        if self.child is not None and self._disconnected_at is None:
            self.child.send(message, descriptors)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child, if there is one."""
        if self.child is not None:
            self.child.signal(number)

    def is_disconnected(self, now: float) -> bool:
        """Whether the child has run without its control socket for more than EXIT_DELAY
        (deadlines.py).
        After a shorter time it may be about to end."""
        since = self._disconnected_at
        return since is not None and now - since > deadlines.EXIT_DELAY

    def shut_down(self, seconds: float) -> None:
        """End the child without asking any table: close its control socket, on which a
        driver stops its cards, and kill it after `seconds`."""
        if self.child is not None:
            self._unwatch(self.child)
            reason = self.child.shut_down(seconds)
            self.context.family.remove(self.child.pid)
            self.context.announce(f"{self.name} {reason}")
            self.child = None

    @property
    def pid(self) -> int | None:
        """Process id of the child; None without a child."""
        return None if self.child is None else self.child.pid

    def environment(self) -> Mapping[str, str]:
        """The environment variables of the program."""
        return os.environ

    @abstractmethod
    def on_message(self, event: str, message: Message) -> None:
        """Handle a message of the child; `event` is its key "event" as a string."""

    @abstractmethod
    def on_exit(self, reason: str) -> None:
        """Handle the exit of the child, which is reaped: `child` is None."""

    def _receive(self, limit: int = MESSAGES_PER_TURN) -> None:
        child = self.child
        for _ in range(limit):
            if child is None or self.child is not child or self._disconnected_at is not None:
                return
            try:
                received = child.control.receive()
            except (Closed, Garbled) as error:
                self.context.loop.forget(child.control.fileno())
                self._disconnected_at = time.monotonic()
                if isinstance(error, Garbled):
                    self.context.announce(f"{self.name}: {error}; it is killed")
                    child.signal(signal.SIGKILL)
                return
            if received is None:
                return
            message, descriptors = received
            for descriptor in descriptors:
                os.close(descriptor)
            self.on_message(str(message.get("event")), message)

    def _child_ended(self) -> None:
        child = self.child
        assert child is not None
        self._receive(MESSAGES_AT_EXIT)
        self._unwatch(child)
        reason = child.reap()
        self.context.family.remove(child.pid)
        self.child = None
        self.on_exit(reason)

    def _unwatch(self, child: Child) -> None:
        self.context.loop.forget(child.pidfd)
        self.context.loop.forget(child.control.fileno())
