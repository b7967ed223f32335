"""Reads a capture with the reader in C, and with the readers in Python alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ringline.shm._shm import lib as shm
from ringline.workers._workers import ffi, lib
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.captures import CaptureReader
from ringline.workers.captures.scanner import OWN_BYTES, Range, Scanner

ROOM = 64
BUFFER = lib.RL_SCAN_UNITS * shm.RL_BUFFER_STRIDE
COUNTS = (
    *("packets", "used", "cut", "overlong", "misdated", "backward", "made_up", "left_out"),
    "cut_at",
)

Frame = tuple[int, int, bytes]  # time, bytes on the wire, bytes in the file


class Read(NamedTuple):
    """What a reader made of a capture: its frames, the error if any, and the tally."""

    frames: list[Frame]
    error: str | None
    tally: dict[str, Any]


def _counts(tally: Tally) -> dict[str, Any]:
    return {name: getattr(tally, name) for name in COUNTS}


def by_python(path: Path, *, to_cut: bool = False) -> Read:
    """The whole capture, frame by frame."""
    tally, frames, error = Tally(str(path), to_cut=to_cut), [], None
    try:
        with CaptureReader(tally, any_link=True) as reader:
            for frame in reader:
                frames.append((frame.nanoseconds, frame.original, bytes(frame.data)[:65535]))
    except CaptureError as raised:
        error = str(raised)
    return Read(frames, error, _counts(tally))


class ByC:
    """A range of the capture, read by C where it can; with `in_place`, its frames stay in the
    window. `odd` counts the frames that Python read."""

    def __init__(
        self,
        path: Path,
        part: Range | None = None,
        *,
        to_cut: bool = False,
        in_place: bool = False,
    ) -> None:
        self.tally = Tally(str(path), to_cut=to_cut)
        self.frames: list[Frame] = []
        self.error: str | None = None
        self.odd = 0
        self.begin: int | None = None
        self.end = 0
        self.section: Any = None
        self._memory = ffi.new("uint8_t[]", ROOM * BUFFER + OWN_BYTES)
        self._scan = ffi.new("struct rl_scan *")
        self._scan.memory = self._memory
        if in_place:
            self._scan.own = self._memory + ROOM * BUFFER
        try:
            self._read(part or Range())
        except CaptureError as raised:
            self.error = str(raised)

    @property
    def read(self) -> Read:
        """The same as `by_python` gives; of a refusal of the whole file, without its sentence."""
        return Read(self.frames, self.error, _counts(self.tally))

    def _read(self, part: Range) -> None:
        scanner = Scanner(self.tally, self._scan, part)
        self.begin, self.section = scanner.begin, scanner.section()
        references = ffi.new("struct rl_reference[]", ROOM)
        times, why = ffi.new("int64_t[]", ROOM), ffi.new("uint32_t *")
        try:
            while not scanner.ended:
                count = lib.rl_scan(self._scan, references, times, ROOM, why)
                for index in range(count):
                    of = references[index]
                    start = of.buffer * shm.RL_BUFFER_STRIDE + of.offset
                    data = bytes(ffi.buffer(self._memory + start, of.length))
                    self.frames.append((times[index], of.rss_hash, data))
                if why[0] == lib.RL_SCAN_STOP:
                    break
                if why[0] == lib.RL_SCAN_ODD or (
                    why[0] == lib.RL_SCAN_MORE and not scanner.extend()
                ):
                    frame = scanner.read()
                    if frame is not None:
                        self.odd += 1
                        data = bytes(frame.data)[:65535]
                        self.frames.append((frame.nanoseconds, frame.original, data))
            self.end = scanner.position
            scanner.finish()
        finally:
            scanner.finish()
            scanner.close()
