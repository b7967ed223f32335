"""Guarantees of the output of a run: it never waits for its reader."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator

import pytest

from ringline.pipeline.terminal import output
from ringline.pipeline.terminal.output import StderrCapture, Unblocked, Writer, keep_room

SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ
TIMEOUT = 30.0  # seconds


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page that nobody reads."""
    read, write = os.pipe()
    fcntl.fcntl(write, SET_PIPE_SIZE, 4096)
    yield read, write
    os.close(read)
    with contextlib.suppress(OSError):
        os.close(write)


def read_until(read: int, end: bytes) -> bytes:
    seen, until = b"", time.monotonic() + TIMEOUT
    while end not in seen:
        assert time.monotonic() < until, seen[-200:]
        seen += os.read(read, 65536)
    return seen


def test_a_full_pipe_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = Writer(write)
    put = 0
    for number in range(2 * output.WAITING_BYTES // 100):
        writer.put(b"%98d\n" % number)
        put += 1
    assert writer.take_lost() == 0, "told before the reader reads again"
    writer.settle(time.monotonic() + 0.05)  # ends, although nobody reads
    os.set_blocking(read, False)
    seen, until = b"", time.monotonic() + TIMEOUT
    while not (lost := writer.take_lost()):
        assert time.monotonic() < until
        with contextlib.suppress(BlockingIOError):
            seen += os.read(read, 65536)
    with contextlib.suppress(BlockingIOError):
        seen += os.read(read, 65536)
    lines = seen.splitlines()
    assert {len(line) for line in lines} == {98}, "a line was cut"
    numbers = [int(line) for line in lines]
    assert numbers == sorted(set(numbers)), "a line came twice or out of order"
    assert len(numbers) == put - lost
    assert writer.close() == 0


def test_lines_that_still_wait_at_the_end_are_lost_too(pipe: tuple[int, int]) -> None:
    writer = Writer(pipe[1])
    for _ in range(3):
        writer.put(b"x" * 5000 + b"\n")
    assert writer.close() == 3


def test_captured_output_leaves_room_for_the_run(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = Writer(write)
    captured = keep_room(writer)
    for _ in range(100):
        captured(b"c" * 9999 + b"\n")
    writer.put(b"the run\n")
    assert b"the run\n" in read_until(read, b"the run\n")
    writer.close()


def test_a_failed_write_is_raised_later(pipe: tuple[int, int]) -> None:
    null = os.open("/dev/full", os.O_WRONLY)
    writer = Writer(null)
    os.close(null)
    writer.put(b"x")
    with pytest.raises(OSError, match="No space left") as error:
        writer.settle(time.monotonic() + TIMEOUT)
    assert error.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        writer.put(b"x")
    assert writer.close() == 0


def test_a_pipe_that_another_process_made_non_blocking_is_waited_for(
    pipe: tuple[int, int],
) -> None:
    """The flag belongs to all who share the pipe."""
    read, write = pipe
    os.set_blocking(write, False)
    writer = Writer(write)
    writer.put(b"x" * 20_000 + b"\n")
    assert len(read_until(read, b"\n")) == 20_001
    writer.close()


def test_the_old_streams_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    old = sys.stdout, sys.stderr
    with Unblocked() as streams:
        print("one", flush=True)
        streams.settle()
        print("two", file=sys.stderr, flush=True)
        assert streams.lost() is None
    assert (sys.stdout, sys.stderr) == old
    assert tuple(capfd.readouterr()) == ("one\n", "two\n")


def test_lost_lines_are_told_at_the_end(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "END_SECONDS", 0.1)
    old = os.dup(1)
    try:
        with Unblocked():
            pass
        os.dup2(pipe[1], 1)
        with Unblocked():
            for _ in range(2):
                print("x" * 5000, flush=True)
    finally:
        os.dup2(old, 1)
        os.close(old)
    told = capfd.readouterr().err
    assert told == "ringline: 2 lines of output were lost, because nobody read them\n"


def test_what_children_print_is_captured_in_whole_lines() -> None:
    written: list[bytes] = []
    capture = StderrCapture(written.append)
    try:
        os.write(2, b"one\ntwo\nhal")
        capture.turn()
        assert written == [b"one\ntwo\n"]
        os.write(2, b"f" + b"x" * output.LINE_BYTES)
        capture.turn()
        assert written[1:] == [b"half" + b"x" * output.LINE_BYTES + b"\n"]
        os.write(2, b"rest")
    finally:
        capture.close()
    assert written[-1] == b"rest\n"
