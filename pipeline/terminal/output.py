"""Standard output and error of a run, which never wait for their reader.

A pipe that is full, a terminal after Ctrl-S, a stalled ssh or a stopped journal blocks who
writes to it. A run must then go on: so a thread writes, and the loop only puts lines into its
queue. The thread is needed because a write to a file or a terminal blocks even after poll
called it writable, and because the flag O_NONBLOCK belongs to everyone who shares the file.

Children write to a pipe that the loop reads (`StderrCapture`), so they do not wait either.

Guarantees (tests in tests/pipeline/terminal/test_output.py):
 - `put` never waits, and its memory is bounded (test_a_full_pipe_costs_lines_and_no_time)
 - lines are lost whole, and counted (test_a_full_pipe_costs_lines_and_no_time)
 - what a child prints cannot crowd out the lines of the run
   (test_captured_output_leaves_room_for_the_run)
 - the error of a write is raised by the next `put` or `settle`
   (test_a_failed_write_is_raised_later)
 - after the block, both streams are the old ones (test_the_old_streams_come_back)
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO, cast

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.terminal import stdio
from ringline.shm.errors import EnvironmentLacks

WAITING_BYTES = 1 << 18  # more than this does not wait for a reader: it is lost
END_SECONDS = deadlines.OUTPUT_END  # at the end of a run, for a reader of the last lines
LAST_SECONDS = deadlines.OUTPUT_LAST  # then, for the sentence about lost lines
LINE_BYTES = 4096  # a longer line of a child is printed in pieces
PIPE_BYTES = 1 << 16  # capacity of a pipe: one read takes all


class Writer:
    """Writes to a copy of the descriptor `fd`, in a thread."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()  # the first one may be half written
        self._bytes = 0
        self._lost = 0
        self._error: OSError | None = None
        self._closing = False
        # A daemon: a write that never returns must not keep the process.
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._fd)
            raise EnvironmentLacks(
                "no thread can be started: raise the limit of processes (ulimit -u)"
            ) from None

    def put(self, data: bytes, limit: int = WAITING_BYTES) -> None:
        """Write `data` soon; lose it when `limit` bytes wait already. Raises the OSError of an
        earlier write."""
        with self._changed:
            self._raise()
            if self._waiting and self._bytes + len(data) > limit:
                self._lost += max(data.count(b"\n"), 1)
                return
            self._waiting.append(data)
            self._bytes += len(data)
            self._changed.notify_all()

    def take_lost(self) -> int:
        """How many lines were lost, once the reader reads again; 0 before. Counts anew."""
        with self._changed:
            if self._waiting:
                return 0
            lost, self._lost = self._lost, 0
            return lost

    def settle(self, until: float) -> None:
        """Wait until all is written, at most until `until` (time.monotonic()). Raises the
        OSError of a write."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._waiting or self._error is not None,
                max(0.0, until - time.monotonic()),
            )
            self._raise()

    def close(self) -> int:
        """End the thread; returns how many lines were lost, with those that still wait."""
        with self._changed:
            lost = self._lost + sum(max(data.count(b"\n"), 1) for data in self._waiting)
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        return 0 if self._error is not None else lost

    def _raise(self) -> None:
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    break
                data = self._waiting[0]
            try:
                self._write(data)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                break
            with self._changed:
                if self._waiting:  # not closed meanwhile
                    self._waiting.popleft()
                    self._bytes -= len(data)
                self._changed.notify_all()
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._closing:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another process that shares the file has set O_NONBLOCK
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)


class Stream(io.TextIOBase):
    """A text stream over a Writer, in place of `old`. What is written between two calls of
    `flush` is written whole or lost whole."""

    def __init__(self, writer: Writer, old: TextIO) -> None:
        self._writer = writer
        self._old = old
        self._parts: list[str] = []

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of the old stream: rich chooses its characters by it."""
        return self._old.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Keep `text` until `flush`."""
        self._parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Put everything into the queue. Raises OSError as `Writer.put`."""
        text = "".join(self._parts)
        self._parts.clear()
        if text:
            self._writer.put(text.encode(self.encoding, "backslashreplace"))

    def fileno(self) -> int:
        """The descriptor of the old stream."""
        return self._old.fileno()

    def isatty(self) -> bool:
        """Whether the old stream is a terminal."""
        return self._old.isatty()

    def writable(self) -> bool:
        """Always."""
        return True


class Unblocked:
    """A context manager: inside it sys.stdout and sys.stderr never wait for their reader.

    On leaving it waits END_SECONDS at most for the last lines to be read.
    """

    def __init__(self) -> None:
        self._old = sys.stdout, sys.stderr
        self._until: float | None = None  # when waiting for the reader ends
        self._out = self.errors = Writer(2)
        # One queue for one file, so that the lines keep their order.
        with contextlib.suppress(OSError):
            if not os.path.samestat(os.fstat(1), os.fstat(2)):
                self._out = Writer(1)
        sys.stdout = cast("TextIO", Stream(self._out, self._old[0]))
        sys.stderr = cast("TextIO", Stream(self.errors, self._old[1]))

    def lost(self) -> str | None:
        """A sentence about lines that were lost, once the reader reads again; else None."""
        return _about(self._out.take_lost() + self.errors.take_lost())

    def settle(self) -> None:
        """Wait until standard output is written; END_SECONDS at most from the first call. Raises
        the OSError of a write, such as that of a full disk."""
        self._out.settle(self._end())

    def _end(self) -> float:
        if self._until is None:
            self._until = time.monotonic() + END_SECONDS
        return self._until

    def __enter__(self) -> Unblocked:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        until, lost = self._end(), 0
        if self._out is not self.errors:
            with contextlib.suppress(OSError):
                self._out.settle(until)
            lost = self._out.close()
        with contextlib.suppress(OSError):
            self.errors.settle(until)
            sentence = _about(lost + self.errors.take_lost())
            if sentence is not None:
                stdio.complain(sentence)
                self.errors.settle(time.monotonic() + LAST_SECONDS)
        self.errors.close()
        sys.stdout, sys.stderr = self._old


class StderrCapture:
    """A `Service` that captures the descriptor of standard error, which children inherit, and
    gives what arrives there to `write`, in whole lines.

    So a child never waits for the reader of the run's output, and does not print into the
    middle of a live table, whose redrawing moves the cursor up by the number of lines drawn.
    """

    deadline = None

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._rest = b""
        self._old = os.dup(2)
        self._read, sink = os.pipe()
        os.set_blocking(self._read, False)
        os.dup2(sink, 2)
        os.close(sink)

    def fileno(self) -> int:
        """Readable when there is captured output."""
        return self._read

    def turn(self) -> None:
        """Write the complete lines; a line longer than LINE_BYTES is written in pieces."""
        whole, _, self._rest = (self._rest + self._take()).rpartition(b"\n")
        if len(self._rest) > LINE_BYTES:
            whole, self._rest = (whole + b"\n" if whole else b"") + self._rest, b""
        if whole:
            self._write(whole + b"\n")

    def close(self) -> None:
        """Restore standard error and write the rest."""
        os.dup2(self._old, 2)
        os.close(self._old)
        rest = self._rest + self._take()
        if rest:
            self._write(rest if rest.endswith(b"\n") else rest + b"\n")
        os.close(self._read)

    def _take(self) -> bytes:
        try:
            return os.read(self._read, PIPE_BYTES)
        except BlockingIOError:
            return b""


def keep_room(writer: Writer) -> Callable[[bytes], None]:
    """A `write` for StderrCapture: the output of children uses half of the queue, and that it
    cannot be written is no error of theirs."""

    def write(data: bytes) -> None:
        with contextlib.suppress(OSError):
            writer.put(data, WAITING_BYTES // 2)

    return write


def _about(lost: int) -> str | None:
    if not lost:
        return None
    lines = "1 line" if lost == 1 else f"{lost} lines"
    return f"{lines} of output were lost, because nobody read them"
