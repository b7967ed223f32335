"""The processes of a laboratory, and how they end.

    this process    holds the network namespaces and waits; it has no thread
      ├─ instance   the run: process 1 of a process namespace, in the middle network
      │    └─ driver, workers
      └─ command    `sh -c CMD` of --exec: on the first host, in the same process namespace

The kernel ends a process namespace with its process 1, so nothing outlives the instance, also
after SIGKILL. The instance ends in order when this process has ended. Its shared memory is in a
/dev/shm of its own, which ends with it too.

Guarantees (tests in tests/e2e/test_lab_ends.py):
 - however one of these processes ends, nothing is left (test_nothing_is_left_however_it_ends)
 - so it is after an error during the set-up (test_an_error_leaves_nothing)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ringline.pipeline.commands.laboratory import kernel
from ringline.pipeline.commands.laboratory.network import HERE, PEER, Network
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.supervisor.event_loop import SIGNALS
from ringline.pipeline.telemetry import status_socket
from ringline.pipeline.terminal import stdio
from ringline.shm import signals
from ringline.shm.errors import EnvironmentLacks, GaveUp

TOO_LATE = 124  # the exit code when the time of a command is over, as of timeout(1)
NO_COMMAND = 126  # the exit code when the shell cannot be started, as in a shell
_LONGEST_WAIT = 86400.0  # seconds: poll(2) counts milliseconds in 32 bits
_AFTER_SIGNAL = 128  # the exit code after a signal is this plus its number
_READY = b"1"
_KEYS = (signal.SIGINT, signal.SIGQUIT)  # Ctrl-C and Ctrl-\ reach the command by themselves

# Runs the instance: gets a descriptor that is readable when this process has ended, and a function
# to call when packets flow; returns the exit code.
Run = Callable[[int, Callable[[], object]], int]


@dataclass(frozen=True)
class Command:
    """What --exec says: a command of the shell, and after how many seconds it is ended."""

    line: str
    seconds: float | None


def hold(network: Network, run: Run, name: str, command: Command | None, end: int | None) -> int:
    """Start the instance `name` by `run`, and then the command; wait for the end of both. Returns
    the exit code: that of the command if it is not 0, else that of the instance.

    Returns a second time, in the instance. Ends when the descriptor `end` is readable. Raises
    EnvironmentLacks when no process can be started.
    """
    numbers = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    alive, held = os.pipe()
    ready, tell = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        kernel.unshare(kernel.NEW_PROCESSES)
        instance = os.fork()
    except OSError as error:
        raise EnvironmentLacks(f"the laboratory cannot be started: {error.strerror}") from None
    if instance == 0:
        os.close(held)
        _become_instance(network, numbers, before, quiet=command is not None)
        return run(alive, lambda: os.write(tell, _READY))
    os.close(tell)
    holder = _Holder(network, numbers, before, instance, command)
    try:
        return holder.wait(ready, end)
    finally:
        holder.kill()
        status_socket.remove_dead(name)  # of an instance that was killed


def _become_instance(
    network: Network, numbers: list[int], before: Iterable[int], *, quiet: bool
) -> None:
    """Turn this new process into the one that runs the instance. Raises EnvironmentLacks."""
    for number in numbers:  # the kernel keeps signals without a handler away from process 1
        signal.signal(number, signal.SIG_IGN if number in signals.ASKING else _leave)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.setsid()  # the keys of the terminal signal the holder, which passes them on
    if quiet:  # the input is for the command
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)
    try:
        kernel.private_mounts(shared_memory=True)
        kernel.enter(network.middle)
    except OSError as error:
        raise EnvironmentLacks(
            f"the laboratory cannot have /proc and /dev/shm of its own: {error.strerror}; run it "
            "as root, or in a container with --privileged"
        ) from None


def _leave(number: int, _frame: object) -> None:
    os._exit(_AFTER_SIGNAL + number)


class _Holder:
    """Waits for the instance and the command, and passes signals on to them."""

    def __init__(
        self,
        network: Network,
        numbers: list[int],
        before: Iterable[int],
        instance: int,
        command: Command | None,
    ) -> None:
        self._network, self._before, self._command = network, before, command
        self._signals = kernel.SignalQueue(numbers)
        self._ends = {instance: os.pidfd_open(instance)}
        self._instance = instance
        self._child = 0  # the process of the command; 0 before and after
        self._code: int | None = None  # of the command, once it is known
        self._deadline: float | None = None  # of the command
        self._ending = False  # the command was told to end
        self._poll = select.poll()

    def wait(self, ready: int, end: int | None) -> int:
        """Serve all events until the instance has ended; the exit code."""
        self._watch(self._signals.fileno())
        self._watch(self._ends[self._instance])
        if self._command is not None:
            self._watch(ready)
        if end is not None:
            self._watch(end)
        while True:
            for fd in self._ready():
                if fd == self._signals.fileno():
                    while (arrived := self._signals.take()) is not None:
                        self._on_signal(arrived)
                elif fd == ready:
                    self._poll.unregister(ready)
                    if os.read(ready, 1) == _READY:
                        self._start_command()
                elif fd == end:
                    self._poll.unregister(end)
                    self._on_signal(kernel.Signal(signal.SIGTERM, from_terminal=False))
                elif self._child and fd == self._ends[self._child]:
                    self._command_ended()
                elif fd == self._ends[self._instance]:
                    return self._instance_ended()

    def kill(self) -> None:
        """End everything that still runs."""
        for pid in self._ends:
            self._signal(pid, signal.SIGKILL)
        for pid in reversed(list(self._ends)):  # the instance ends after the command is reaped
            self._reap(pid)
        self._signals.close()

    # -- events -----------------------------------------------------------------------------

    def _ready(self) -> Iterator[int]:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        found = self._poll.poll(None if left is None else min(left, _LONGEST_WAIT) * 1000)
        if not found and self._deadline is not None and self._deadline <= time.monotonic():
            self._too_late()
        # The command before the instance: the kernel ends it when the instance ends.
        order = [fd for fd, _ in found]
        return iter(sorted(order, key=lambda fd: fd == self._ends[self._instance]))

    def _on_signal(self, arrived: kernel.Signal) -> None:
        number = arrived.number
        if number in signals.ASKING:
            self._signal(self._instance, number)
        elif not self._child:
            if self._command is not None and self._code is None:
                self._code = _AFTER_SIGNAL + number
            self._signal(self._instance, number)
        elif not (arrived.from_terminal and number in _KEYS):
            self._end_command(number)

    def _start_command(self) -> None:
        assert self._command is not None
        if self._code is not None:  # a signal came first
            return
        try:
            pid = os.fork()
        except OSError as error:
            stdio.complain(f"the command cannot be started: {error.strerror}")
            self._code = NO_COMMAND
            self._signal(self._instance, signal.SIGTERM)
            return
        if pid == 0:
            _run_command(self._network, self._before, self._command.line)
        self._child = pid
        self._ends[pid] = os.pidfd_open(pid)
        self._watch(self._ends[pid])
        while (arrived := self._signals.take()) is not None:  # perhaps before the fork
            self._on_signal(kernel.Signal(arrived.number, from_terminal=False))
        if self._command.seconds is not None:
            self._deadline = time.monotonic() + self._command.seconds

    def _end_command(self, number: int) -> None:
        """Signal the command, and kill it when it has not ended in time."""
        self._signal(self._child, number)
        self._ending = True
        self._deadline = time.monotonic() + deadlines.COMMAND_END

    def _too_late(self) -> None:
        """The time of the command is over, or that for its end after a signal."""
        assert self._command is not None
        if self._ending:
            self._deadline = None
            self._signal(self._child, signal.SIGKILL)
        else:
            self._code = TOO_LATE
            stdio.complain(f"the command was ended after {self._command.seconds:g} s")
            self._end_command(signal.SIGTERM)

    def _command_ended(self) -> None:
        code = self._reap(self._child)
        self._child, self._deadline = 0, None
        self._code = code if self._code is None else self._code
        self._signal(self._instance, signal.SIGTERM)

    def _instance_ended(self) -> int:
        code = self._reap(self._instance)
        if code > _AFTER_SIGNAL and code - _AFTER_SIGNAL not in signals.ENDING:
            name = signals.name_of(code - _AFTER_SIGNAL)
            stdio.complain(f"the process of the laboratory was ended by {name}; nothing is left")
            code = GaveUp.exit_code
        killed = self._code == _AFTER_SIGNAL + signal.SIGKILL  # perhaps with the instance
        return code if code and (not self._code or killed) else self._code or code

    # -- processes --------------------------------------------------------------------------

    def _watch(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def _signal(self, pid: int, number: int) -> bool:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ends[pid], number)
            return True
        return False

    def _reap(self, pid: int) -> int:
        """Wait for the end of a child; its exit code, 128 + the number after a signal."""
        _, status = os.waitpid(pid, 0)
        end = self._ends.pop(pid)
        with contextlib.suppress(KeyError):
            self._poll.unregister(end)
        os.close(end)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else _AFTER_SIGNAL - code


def _run_command(network: Network, before: Iterable[int], line: str) -> None:
    """Become the shell that runs the command line on the first host."""
    try:
        # SIGINT would be noted for Python, which is gone in a moment; it ignores the others.
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        kernel.enter(network.hosts[HERE])
        kernel.private_mounts(devices=True)
        peer = network.hosts[PEER]
        os.set_inheritable(peer, True)
        environment = os.environ | network.environment()
        environment["RINGLINE_PEER_NETNS"] = f"/proc/{os.getpid()}/fd/{peer}"
        os.execve("/bin/sh", ["sh", "-c", line], environment)
    except OSError as error:
        stdio.complain(f"the command cannot be started: {error.strerror}")
    finally:
        os._exit(NO_COMMAND)
