"""The supervisor's children: started by exec, spoken to by a control socket, watched by pidfd.

A child is never made by forking a process that has threads or DMA memory:
subprocess calls vfork and exec in C, and no Python runs in between.

Guarantees (tests in tests/pipeline/supervisor/test_child.py):
 - a child has a session of its own: no key of a terminal reaches it, and its
   whole family is ended with it (test_the_family_ends_with_the_child)
 - it inherits its control socket and nothing else
   (test_nothing_but_the_control_socket_is_inherited)
 - its exit is reported once, and only when its memory is gone
   (test_exit_is_told_with_its_reason)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from ringline.shm.control import ENVIRONMENT, Closed, Control
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.messages import ToChild

# Seconds for which a killed process is waited for; one that a device driver holds may never end.
UNKILLABLE = 10.0


class Child:
    """A running child. `name` is for messages: "worker 2", "driver".

    `pidfd` becomes readable when it has ended; `control` speaks to it.
    """

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the program `arguments`; its output goes where our error output goes.

        Raises EnvironmentLacks when there are no processes or descriptors left.
        """
        self.name = name
        self.started = time.monotonic()
        self.control, theirs = Control.pair()
        try:
            self._process = subprocess.Popen(
                arguments,
                env={**environment, ENVIRONMENT: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,
            )
        except OSError as error:
            self.control.close()
            raise EnvironmentLacks(
                f"{name} could not be started ({arguments[0]}): {error.strerror}"
            ) from None
        finally:
            theirs.close()
        self.pid = self._process.pid
        try:
            # It cannot have been reaped yet, so this is still the same process.
            self.pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self.control.close()
            self._process.kill()
            self._process.wait()
            raise EnvironmentLacks(f"{name} could not be watched: {error.strerror}") from None

    def tell(self, message: ToChild, descriptors: Sequence[int] = ()) -> bool:
        """Send a message; False when it is gone or does not read, which its exit or
        its heartbeat will tell soon enough."""
        try:
            self.control.send(message, descriptors)
        except (Closed, TimeoutError):
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process, never to a later one with its number."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def ended(self) -> bool:
        """Whether it has ended; it may still have to be reaped."""
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> str:
        """After its end: end what it left behind, free everything, say how it ended.

        Its process group keeps its number until it is reaped, so that the signal
        finds only processes which it started itself.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self.pidfd)
        self.control.close()
        return how_it_ended(self._process.returncode)

    def leave(self, seconds: float) -> str:
        """Close its control socket, on which it ends by itself; kill it if it does not
        within `seconds`; reap it."""
        self.control.close()
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            self.signal(signal.SIGKILL)
            if not poll.poll(UNKILLABLE * 1000):
                os.close(self.pidfd)
                return "could not be ended: it hangs in the kernel"
        return self.reap()


def how_it_ended(status: int) -> str:
    """A return code of subprocess in words: "was ended by SIGKILL", "exited with status 1"."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"
