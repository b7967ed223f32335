"""Monitors: each has one child, hears what it says, sees its end, and does what a table decides.

The tables (`lifecycle`, `run_lifecycle`) decide; the monitors act; the supervisor
owns the loop and the course of the run. This is what all monitors have in common.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ringline.pipeline.configuration.affinity import Place
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor.child import Child
from ringline.pipeline.supervisor.event_loop import Loop
from ringline.pipeline.supervisor.instance import Instance
from ringline.shm import errors
from ringline.shm.control import Closed, Garbled, Message
from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.shm.messages import ToChild
from ringline.workers.captures.capture_table import CaptureError

REMARKS_MAX = 32
MESSAGES_PER_TURN = 16  # a child that talks without end must not keep the loop
DYING = 0.5  # seconds from the closing of a process's files to its end, on a busy machine
LAST_WORDS = 1000  # more than a socket holds

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
    places: Mapping[str, Place]
    announce: Callable[[str], None]
    fail: Callable[[RinglineError], None]  # the run must end at once for this reason
    lack: Callable[[EnvironmentLacks], None]  # it must end for this one, in order
    remarked: set[str] = field(default_factory=set)  # what workers said of their plugins

    def is_new(self, remark: str) -> bool:
        """Whether no worker of this run has said so before; they all run the same plugin."""
        if remark in self.remarked or len(self.remarked) >= REMARKS_MAX:
            return False
        self.remarked.add(remark)
        return True


class Monitor(ABC):
    """One child at a time, wired to the loop."""

    def __init__(self, context: RunContext, name: str, program: Sequence[str]) -> None:
        self.context = context
        self.name = name
        self.child: Child | None = None
        self._deaf_since: float | None = None  # it cannot be spoken to
        self._program = program

    def spawn(self) -> None:
        """Start the program and listen to it."""
        child = self.child = Child(self.name, self._program, self.environment())
        self._deaf_since = None
        self.context.loop.watch(child.pidfd, self._exited)
        self.context.loop.watch(child.control.fileno(), self._listen)

    def tell(self, message: ToChild, descriptors: Sequence[int] = ()) -> None:
        """Send to the child, if there is one that listens."""
        if self.child is not None and self._deaf_since is None:
            self.child.tell(message, descriptors)

    def signal(self, number: signal.Signals) -> None:
        """Signal the child, if there is one."""
        if self.child is not None:
            self.child.signal(number)

    def deaf(self, now: float) -> bool:
        """Whether it goes on without its control socket; one that is about to end has not
        gone on for long."""
        return self._deaf_since is not None and now - self._deaf_since > DYING

    def abandon(self, seconds: float) -> None:
        """End the child whatever any table says: by closing its control socket, which
        lets a driver stop its cards, and after `seconds` by force."""
        if self.child is not None:
            self._forget(self.child)
            how = self.child.leave(seconds)
            self.context.announce(f"{self.name} {how}")
            self.child = None

    @property
    def pid(self) -> int | None:
        """Process id of the child there is."""
        return None if self.child is None else self.child.pid

    def environment(self) -> Mapping[str, str]:
        """What the program finds in its environment."""
        return os.environ

    @abstractmethod
    def heard(self, what: str, message: Message) -> None:
        """The child sent the event `what`."""

    @abstractmethod
    def ended(self, how: str) -> None:
        """The child's end is certain, and `child` is None."""

    def _listen(self, most: int = MESSAGES_PER_TURN) -> None:
        child = self.child
        for _ in range(most):
            if child is None or self.child is not child or self._deaf_since is not None:
                return
            try:
                received = child.control.receive()
            except (Closed, Garbled) as error:
                self.context.loop.forget(child.control.fileno())
                self._deaf_since = time.monotonic()
                if isinstance(error, Garbled):
                    self.context.announce(f"{self.name}: {error}; it is ended")
                    child.signal(signal.SIGKILL)
                return
            if received is None:
                return
            message, descriptors = received
            for descriptor in descriptors:
                os.close(descriptor)
            self.heard(str(message.get("event")), message)

    def _exited(self) -> None:
        child = self.child
        assert child is not None
        self._listen(LAST_WORDS)  # they came before its end
        self._forget(child)
        how = child.reap()
        self.child = None
        self.ended(how)

    def _forget(self, child: Child) -> None:
        self.context.loop.forget(child.pidfd)
        self.context.loop.forget(child.control.fileno())
