"""The frames of a capture on a simulated wire, in their order and on request at their times.

A short capture is kept in memory, where the device model repeats it by itself. A long one is read
while it is sent, at most CHUNK frames at a time, and once more for each repetition, so that memory
does not grow with the file.

With the pace "captured" a frame is due as long after the first one as in the capture. All times
count from the begin of the wire, so no delay adds up. A frame whose time is before that of the
frame before it follows at once. When the clock of the capture steps back by STEP_BACK or more, the
later times count from there.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator

from ringline.pipeline.configuration.config import WireConfig
from ringline.pipeline.ports.sim82599.wire import (
    CARD_MAC,
    LINE_BYTES,
    FrameTable,
    Timing,
    from_flows,
    table_of,
)
from ringline.workers.captures.captures import CaptureError, CaptureReader, Frame, Tally

KEEP_BYTES = 256 << 20  # of frames; a longer capture is not kept in memory
CHUNK = 256  # frames; to read them takes some tenths of a millisecond
CHUNK_BYTES = 1 << 18  # more than a chunk of ordinary frames has
STEP_BACK = 1_000_000_000  # nanoseconds
_ALONE = 1_000_000_000  # nanoseconds between repetitions of a capture with a single time
_FURTHEST = 1 << 62  # nanoseconds, 146 years: times are sums of two numbers of 64 bits


def frame_table(wire: WireConfig, destination: bytes = CARD_MAC) -> FrameTable | None:
    """The frames of `wire`; None when no traffic arrives. Flows go to the MAC `destination`.

    Raises CaptureError when the capture cannot be replayed.
    """
    if wire.flows is not None:
        return from_flows(wire.flows, destination)
    if wire.replay is not None:
        return from_replay(wire)
    return None


def from_replay(wire: WireConfig) -> FrameTable:
    """The frames of the capture file `wire.replay`, sent `wire.repeat` times; 0: without end. The
    `more` of a long capture raises CaptureError where the file is damaged.

    Raises CaptureError when the file cannot be read or has no packets.
    """
    kept = _kept(wire)
    if kept is not None:
        return kept
    first = _Stream(wire).more()
    if first is None:
        raise _empty(wire)
    return first


def _tally(wire: WireConfig) -> Tally:
    assert wire.replay is not None
    return Tally(wire.replay, to_cut=wire.cut == "play")


def _empty(wire: WireConfig) -> CaptureError:
    return CaptureError(f"{wire.replay}: holds no packet, so there is nothing to replay")


def _kept(wire: WireConfig) -> FrameTable | None:
    """The whole capture as a table; None when it is too long for that."""
    pace = _Pace(wire)
    frames: list[bytes] = []
    stamps, due = array("q"), array("Q")
    size = 0
    with CaptureReader(_tally(wire)) as reader:
        if reader.share < 1 and os.path.getsize(reader.tally.file) > KEEP_BYTES:
            return None
        for frame in reader:
            size += len(frame.data) + LINE_BYTES
            if size > KEEP_BYTES:
                return None
            frames.append(bytes(frame.data))
            if pace.wanted:
                stamps.append(frame.nanoseconds)
                due.append(pace.due(frame.nanoseconds))
    if not frames:
        raise _empty(wire)
    timing = Timing(stamps, due, wire.speed, pace.period) if pace.wanted else None
    order = array("I", range(len(frames)))
    remark = reader.tally.remark(clock=pace.wanted)
    return table_of(frames, order, len(order) * wire.repeat, remark, timing)


class _Pace:
    """When the frames of a capture are due; call `due` once for each frame, in their order."""

    def __init__(self, wire: WireConfig) -> None:
        self.wanted = wire.pace == "captured"
        self._first: int | None = None  # the time that is due at 0
        self._latest = 0
        self._frames = 0

    def due(self, time: int) -> int:
        """Nanoseconds from the first frame to the one captured at `time`, 0 if it has no time."""
        self._frames += 1
        if time == 0:
            return self._latest
        if self._first is None:
            self._first = time
        due = time - self._first
        if due <= self._latest - STEP_BACK:
            self._first = time - self._latest
        elif due > self._latest:
            self._latest = min(due, _FURTHEST)
        return self._latest

    @property
    def period(self) -> int:
        """Nanoseconds until a repetition: as from frame to frame on average after the last one."""
        gaps = self._frames - 1
        return self._latest + (self._latest // gaps if gaps > 0 and self._latest else _ALONE)


class _Stream:
    """Reads a capture while it is sent; `more` gives the next frames."""

    def __init__(self, wire: WireConfig) -> None:
        self._wire = wire
        self._timed = self._read()

    def _read(self) -> Iterator[tuple[Frame, int, int]]:
        """Each frame with its time stamp and when it is due, in all repetitions."""
        wire = self._wire
        shift = lap = 0
        while wire.repeat == 0 or lap < wire.repeat:
            pace = _Pace(wire)
            with CaptureReader(_tally(wire)) as reader:
                for frame in reader:
                    stamp = due = 0
                    if pace.wanted:
                        due = pace.due(frame.nanoseconds) + shift
                        stamp = frame.nanoseconds + shift
                    yield frame, stamp, due
                if not reader.tally.used:
                    return
            shift = min(shift + pace.period, _FURTHEST)
            lap += 1

    def more(self) -> FrameTable | None:
        """The next frames, at most CHUNK; None at the end. Raises CaptureError where the file is
        damaged."""
        frames: list[bytes | memoryview] = []
        stamps, due = array("q"), array("Q")
        size = 0
        for frame, stamp, at in self._timed:
            frames.append(frame.data)
            size += len(frame.data)
            stamps.append(min(stamp, (1 << 63) - 1))
            due.append(at)
            if len(frames) == CHUNK or size >= CHUNK_BYTES:
                break
        if not frames:
            return None
        wire = self._wire
        timing = Timing(stamps, due, wire.speed) if wire.pace == "captured" else None
        # An end that is not known is one that will come: a finite capture waits for every queue.
        total = 0 if wire.repeat == 0 else (1 << 64) - 2
        order = array("I", range(len(frames)))
        return table_of(frames, order, total, None, timing, self.more)
