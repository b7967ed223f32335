"""A child process: started by exec, spoken to over a control socket, watched by a pidfd.

No child is made by forking a process that has threads or DMA memory: subprocess calls vfork
and exec in C, and no Python code runs in between.

Guarantees (tests in tests/pipeline/supervisor/test_child.py):
 - a child has a process group of its own, so keys pressed in a terminal send it no signal, and
   inherits its control socket and nothing else
   (test_nothing_but_the_control_socket_is_inherited)
 - it has the session of the supervisor (test_a_child_stays_in_the_session). The kernel shares a CPU
   among sessions first, and then inside each (sched(7), autogroup). Of two processes with sessions
   of their own, none gives the CPU to the other when it yields.
 - the processes that a child started are killed when it is reaped
   (test_processes_that_a_child_started_end_with_it)
 - its exit is reported with its status or signal (test_exit_is_reported_with_its_reason)
 - a child that ignores its closed control socket is killed
   (test_a_child_is_ended_by_its_closed_socket_or_by_sigkill)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence

from ringline.pipeline.configuration import deadlines
from ringline.shm.control import ENVIRONMENT, Closed, Control
from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.messages import ToChild


class Child:
    """A running child. `name` is used in messages: "worker 2", "driver".

    `pidfd` becomes readable when the process has ended; `control` is our end of its socket.
    """

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the program `arguments`; its standard output goes to our standard error.

        Raises EnvironmentLacks if the program cannot be started or no descriptor is left.
        """
        self.name = name
        self.control, theirs = Control.pair()
        try:
            self._process = subprocess.Popen(
                arguments,
                env={**environment, ENVIRONMENT: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,
                process_group=0,
            )
        except OSError as error:
            self.control.close()
            raise EnvironmentLacks(
                f"{name} could not be started ({arguments[0]}): {reason_of(error)}"
            ) from None
        finally:
            theirs.close()
        self.pid = self._process.pid
        try:
            # Nobody has reaped it yet, so the process id still names this process.
            self.pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self.control.close()
            self._process.kill()
            self._process.wait()
            raise EnvironmentLacks(f"{name} could not be watched: {reason_of(error)}") from None

    def send(self, message: ToChild, descriptors: Sequence[int] = ()) -> bool:
        """Send a message. Returns False if the child has closed its socket or does not read:
        the supervisor learns that from its exit or its heartbeat."""
        try:
            self.control.send(message, descriptors)
        except (Closed, TimeoutError):
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process, never to a later one with the same process id."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> str:
        """Call after the end: kill what it left running, free everything, say how it ended."""
        # Before wait() its process id, and so its process group id, cannot be reused: the
        # signal reaches only processes that it started.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self.pidfd)
        self.control.close()
        return exit_reason(self._process.returncode)

    def shut_down(self, seconds: float) -> str:
        """Close the control socket, which makes a child exit; kill it if it has not ended
        after `seconds`; reap it. Returns how it ended."""
        self.control.close()
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            self.signal(signal.SIGKILL)
            if not poll.poll(deadlines.KILLED * 1000):
                os.close(self.pidfd)
                return "could not be ended: it hangs in the kernel"
        return self.reap()


def exit_reason(status: int) -> str:
    """A return code of subprocess in words: "was ended by SIGKILL", "exited with status 1"."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"
