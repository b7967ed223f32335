"""Does the tasks of an analysis in child processes, which are used again for the next task.

A user's plugin may crash, hang or leave threads: that costs the task and its child, never the
process that asked. `do` may be called by several threads, in any process.
"""

from __future__ import annotations

import atexit
import json
import mmap
import os
import queue
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.workers.process import launch
from ringline.workers.trials import checking

PAGE = 4096
PREPARE_SECONDS = checking.PREPARE_SECONDS
JOIN_SECONDS = 600.0  # for one merge, and for each step of writing tables
_LOOK_SECONDS = 0.05
_EXIT_SECONDS = 10.0  # for a child that closed its output
_PIECE = 1 << 20
_RUNNING, _JOINING = 1, 2  # what a child does (child.py)
SILENCE_SECONDS = 30.0  # without a packet, then a child is killed


class Died(Exception):
    """A child crashed, ended or hung. Its text is the end of a sentence about the plugin."""


class Cancelled(Exception):
    """The job was cancelled."""


class Cancellation:
    """Ends the jobs that were given it, soon, with Cancelled; those in this process only, since a
    copy in another process is a new one."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __reduce__(self) -> tuple[type[Cancellation], tuple[()]]:
        return Cancellation, ()

    def cancel(self) -> None:
        """End them."""
        self._event.set()

    def check(self) -> None:
        """Raise Cancelled after `cancel`."""
        if self._event.is_set():
            raise Cancelled


def do(
    plugin: Mapping[str, Any],
    job: Mapping[str, Any],
    parts: Sequence[bytes] = (),
    *,
    silence: float = SILENCE_SECONDS,
    cancellation: Cancellation | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Do one job with the plugin; the answer, and the part that belongs to it. Raises Cancelled.

    plugin: what a child is started with: plugin, options, folder, ports, state_bytes, debug; and
        away, cwd, found and search for one that may come from another machine (remote.py).
    silence: after so many seconds without any progress a child is killed.
    cancellation: ends the job; None: nobody does.

    The answer of a child that died is `{"died": "crashed (SIGSEGV)"}`. Raises EnvironmentLacks when
    no child can be started.
    """
    cancellation = cancellation or Cancellation()
    cancellation.check()
    key = json.dumps(plugin, sort_keys=True)
    child = _pool.take(key) or _pool.starter.start(plugin)
    try:
        answer = child.do(job, parts, silence, cancellation)
        _pool.put(key, child, cancellation)
    except Died as error:
        child.end()
        return {"died": str(error)}, b""
    except BaseException:
        child.end()
        raise
    return answer


def close() -> None:
    """End the children that do nothing; further jobs start new ones."""
    for child in _pool.take_all():
        child.end()


class _Pool:
    """The children that do nothing, by plugin, and who starts more."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with nothing, and with locks that no other thread holds."""
        self.starter = _Starter()
        self._lock = threading.Lock()
        self._idle: dict[str, list[_Child]] = {}

    def take(self, key: str) -> _Child | None:
        """A child with this plugin, if there is one."""
        with self._lock:
            idle = self._idle.get(key)
            return idle.pop() if idle else None

    def take_all(self) -> list[_Child]:
        """All children that do nothing."""
        with self._lock:
            taken = [child for idle in self._idle.values() for child in idle]
            self._idle.clear()
        return taken

    def put(self, key: str, child: _Child, cancellation: Cancellation) -> None:
        """Keep a child for the next job, unless its job was cancelled: then nobody may be there to
        end it. Raises Cancelled."""
        with self._lock:
            cancellation.check()
            self._idle.setdefault(key, []).append(child)


class _Child:
    """A child process, and the page where it shows its progress."""

    def __init__(self, plugin: Mapping[str, Any]) -> None:
        page_fd = os.memfd_create("ringline-analysis", os.MFD_CLOEXEC)
        try:
            os.ftruncate(page_fd, PAGE)
            self._page = mmap.mmap(page_fd, PAGE)
            self._process = subprocess.Popen(
                launch.command("analysis.child"),
                env=launch.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[page_fd],
                start_new_session=True,
                cwd=plugin.get("cwd"),
            )
        finally:
            os.close(page_fd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._unsent: list[memoryview] = []
        self._send(json.dumps(dict(plugin) | {"page": page_fd}).encode() + b"\n")

    def _send(self, data: bytes) -> None:
        if data:
            self._unsent.append(memoryview(data))

    def _word(self, number: int) -> int:
        return int.from_bytes(self._page[8 * number : 8 * number + 8], "little")

    def do(
        self,
        job: Mapping[str, Any],
        parts: Sequence[bytes],
        silence: float,
        cancellation: Cancellation,
    ) -> tuple[dict[str, Any], bytes]:
        """Do one job. Raises Died and Cancelled."""
        self._page[0:24] = bytes(24)
        self._send(
            json.dumps(dict(job) | {"sizes": [len(part) for part in parts]}).encode() + b"\n"
        )
        for part in parts:
            self._send(part)
        pieces: list[bytes] = []
        size, head = 0, -1  # bytes there; bytes of the line and of the part together
        answer: dict[str, Any] = {}
        state, since = (0, 0, 0), time.monotonic()
        while head < 0 or size < head:
            data = self._exchange()
            now = state
            if data:
                pieces.append(data)
                size += len(data)
                since = time.monotonic()
                if head < 0 and b"\n" in data:
                    joined = b"".join(pieces)
                    line = joined[: joined.index(b"\n") + 1]
                    answer, pieces = json.loads(line), [joined]
                    head = len(line) + answer["size"]
            now = self._word(0), self._word(1), self._word(2)
            if now != state:
                state, since = now, time.monotonic()
            cancellation.check()
            limit = {_RUNNING: silence, _JOINING: JOIN_SECONDS}.get(now[2], PREPARE_SECONDS)
            if time.monotonic() - since > limit:
                raise Died(f"made no progress for {limit:g} s{self._place(now)}")
        whole = b"".join(pieces)
        return answer, whole[head - answer.pop("size") : head]

    def _exchange(self) -> bytes:
        """Write what can be written, and read what is there. Raises Died when the child ended."""
        waiting = select.poll()
        waiting.register(self._out, select.POLLIN)
        if self._unsent:
            waiting.register(self._in, select.POLLOUT)
        over = checking.has_ended(self._process)
        events = dict(waiting.poll(0 if over else int(1000 * _LOOK_SECONDS)))
        if events.get(self._in, 0) and not over:
            try:
                sent = os.write(self._in, self._unsent[0][:_PIECE])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.pop(0)
            except BlockingIOError:
                pass
            except BrokenPipeError:
                over = True
        if events.get(self._out, 0) & (select.POLLIN | select.POLLHUP):
            data = os.read(self._out, _PIECE)
            if data:
                return data
            self._await_end()
            over = True
        if over:
            now = self._word(0), self._word(1), self._word(2)
            self.end()
            raise Died(checking.how_it_ended(self._process.returncode) + self._place(now))
        return b""

    def _await_end(self) -> None:
        """Wait for a child that closed its output to exit, so that its exit status is its own."""
        until = time.monotonic() + _EXIT_SECONDS
        while not checking.has_ended(self._process) and time.monotonic() < until:
            time.sleep(0.005)

    @staticmethod
    def _place(now: tuple[int, int, int]) -> str:
        if now[2] != _RUNNING:
            if now[2] == _JOINING:
                return " while it joined parts or wrote tables"
            return " while it was made ready"
        return f" after packet {now[0]}" if now[0] else " before its first packet was done"

    def end(self) -> None:
        """Kill the child and what it started, and reap it; may be called again."""
        checking.end(self._process)


class _Starter:
    """Starts all children from one thread, which lasts as long as this process: the kernel kills a
    child when the thread that started it is gone (PR_SET_PDEATHSIG of prctl(2))."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[Mapping[str, Any], queue.SimpleQueue[Any]]]
        self._wanted = queue.SimpleQueue()
        self._is_running = False
        self._lock = threading.Lock()

    def start(self, plugin: Mapping[str, Any]) -> _Child:
        """Start a child. Raises EnvironmentLacks when the system cannot."""
        with self._lock:
            if not self._is_running:
                self._is_running = True
                threading.Thread(
                    target=self._run, args=(self._wanted,), name="children", daemon=True
                ).start()
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wanted.put((plugin, answer))
        child = answer.get()
        if isinstance(child, OSError):
            raise EnvironmentLacks(
                f"a process for the plugin {plugin['plugin']} cannot be started: {reason_of(child)}"
            ) from child
        if isinstance(child, BaseException):
            raise child
        assert isinstance(child, _Child)
        return child

    @staticmethod
    def _run(wanted: queue.SimpleQueue[Any]) -> None:
        while True:
            plugin, answer = wanted.get()
            try:
                answer.put(_Child(plugin))
            except BaseException as error:
                answer.put(error)


_pool = _Pool()
atexit.register(close)
# In a process that was forked the children belong to its parent, and another thread of the parent
# may have held a lock.
os.register_at_fork(after_in_child=_pool.begin)
