"""The family of a process: who started it, the children that it started, and what they leave.

A plugin may start processes, and a double fork takes them out of the process group of their
worker. Such a process still maps packet memory, so it must not outlive its worker. A Family
makes this process the new parent of every descendant that loses its own parent. A descendant
says whose it is by a mark that its worker had in its environment from the start.

A program that starts a run for itself, such as a benchmark or a test, gives it END_WITH in the
environment: then the run ends with that program. A run that a user starts goes on when the
shell ends.

Guarantees (tests in tests/shm/test_family.py):
 - what a child leaves behind ends with it, also after a double fork and across generations
   (test_what_a_child_leaves_ends_with_it, test_a_chain_of_orphans_ends_with_its_child)
 - the family of another child, and processes that were there before, live on
   (test_the_family_of_another_child_lives_on, test_a_process_that_was_there_before_lives_on)
 - a process that hides its mark ends too (test_an_orphan_without_a_mark_ends)
 - no zombie stays (test_orphans_that_have_ended_are_reaped)
 - at the end nothing is left (test_nothing_is_left_at_the_end)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from ringline.shm._shm import lib
from ringline.shm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping

MARK = "RINGLINE_FAMILY"
END_WITH = "RINGLINE_END_WITH"  # the id of the process that this one ends with
SECONDS = 1.0  # for one call: SIGKILL ends a process in milliseconds, unless the kernel holds it
_CHILDREN = "/proc/thread-self/children"  # all of this process, which has one thread


class Family:
    """The children of this process by their marks. Use `adopt` as a context.

    Before `adopt`, and after it, nothing is looked for and nothing is killed.
    """

    def __init__(self) -> None:
        self._adopting = False
        # Whether every orphan comes from one of our children. Process 1 gets all orphans of its
        # container, such as those of `docker exec`, so it ends only those with a mark.
        self._alone = True
        self._foreign: set[int] = set()  # children of this process that the family did not start
        self._marks: dict[int, str] = {}  # by process id
        self._count = 0

    @contextlib.contextmanager
    def adopt(self) -> Iterator[None]:
        """Be the parent of all descendants; on leaving, end what is left of them.

        For a process that starts no children but those of this family, and no threads.
        """
        if not _sees_itself() or lib.rl_adopt_orphans(1) != 0:
            yield  # /proc is missing or shows other processes, so nothing can be found
            return
        self._foreign = set(_children())
        self._alone = os.getpid() != 1
        self._adopting = True
        try:
            yield
        finally:
            self.end_all()
            self._adopting = False
            lib.rl_adopt_orphans(0)

    def mark(self) -> str:
        """The value of MARK for the environment of the next child."""
        self._count += 1
        return f"{os.getpid()}.{self._count}"

    def add(self, pid: int, mark: str) -> None:
        """Note a child that was started with this mark."""
        self._marks[pid] = mark

    def remove(self, pid: int) -> None:
        """End what the child `pid`, which is reaped, left behind."""
        self._marks.pop(pid, None)
        living = set(self._marks.values())
        self._end(lambda mark: mark not in living if mark else self._alone)

    def reap(self) -> None:
        """Reap the orphans that have ended, as init does. Call it from time to time."""
        for pid in _children() if self._adopting else ():
            if pid not in self._marks and _reap(pid):
                self._foreign.discard(pid)

    def end_all(self) -> None:
        """End all orphans, whoever left them."""
        self._end(lambda mark: bool(mark) or self._alone)

    def _orphans(self) -> list[int]:
        return [pid for pid in _children() if pid not in self._marks and pid not in self._foreign]

    def _end(self, doomed: Callable[[str], bool]) -> None:
        """Kill the orphans with a doomed mark, and then the children of those, until none is
        left or SECONDS have passed. The next call continues."""
        until = time.monotonic() + SECONDS
        while self._adopting and time.monotonic() < until:
            self.reap()
            found = [pid for pid in self._orphans() if doomed(_mark_of(pid))]
            if not found:
                return
            _kill(found, until)


def starter_end(environment: MutableMapping[str, str]) -> int | None:
    """A descriptor that is readable when the process of END_WITH has ended; None without one.

    Removes END_WITH from `environment`: what this process starts has another starter. Raises
    UsageError when its value is not the id of a process.
    """
    text = environment.pop(END_WITH, None)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text[:10]) < 1 << 31:
        raise UsageError(f"{END_WITH} must be the id of a process, not {text!r}")
    try:
        return os.pidfd_open(int(text))
    except ProcessLookupError:  # it has ended: a pipe without writers is readable
        read, write = os.pipe()
        os.close(write)
        return read


def _sees_itself() -> bool:
    """Whether /proc shows the processes of this PID namespace, by their numbers here."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self") == str(os.getpid()) and bool(os.stat(_CHILDREN))
    return False


def _children() -> list[int]:
    with open(_CHILDREN, encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _mark_of(pid: int) -> str:
    """The mark in the environment that a process was started with; "" if it has none."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            if entry.startswith(f"{MARK}=".encode()):
                return entry.partition(b"=")[2].decode("ascii", "replace")
    return ""


def _kill(pids: Iterable[int], until: float) -> None:
    """Kill our own children, whose numbers nobody else can get before we reap them; wait for
    their ends until `until` (time.monotonic())."""
    ends = []
    try:
        for pid in pids:
            with contextlib.suppress(OSError):
                ends.append(os.pidfd_open(pid))
                signal.pidfd_send_signal(ends[-1], signal.SIGKILL)
        for end in ends:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            poll.poll(max(0.0, until - time.monotonic()) * 1000)
    finally:
        for end in ends:
            os.close(end)


def _reap(pid: int) -> bool:
    """Reap a child of ours; False if it still runs."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return True
