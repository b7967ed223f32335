"""Frames between the ends of cables, in both directions at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from .cards import End

SECONDS = 60.0  # without a frame, after which the rest counts as lost
UNDER_WAY = 400  # frames: a card has a descriptor for each
_TURN = 0.001  # seconds


def exchange(*ways: tuple[End, End, list[bytes]]) -> list[list[bytes]]:
    """Send the frames of each way to its first end, all at once, and return what came from its
    second end: when as many have come as were sent, or none has come for SECONDS."""
    before = [len(second.frames()) for _, second, _ in ways]
    sent, came = [0 for _ in ways], [0 for _ in ways]
    until = time.monotonic() + SECONDS
    while sum(came) < sum(len(frames) for *_, frames in ways) and time.monotonic() < until:
        for way, (first, second, frames) in enumerate(ways):
            now = len(second.frames()) - before[way]
            if now > came[way]:
                came[way], until = now, time.monotonic() + SECONDS
            for frame in frames[sent[way] : came[way] + UNDER_WAY]:
                first.send(frame)
                sent[way] += 1
        time.sleep(_TURN)
    return [second.frames()[begin:] for (_, second, _), begin in zip(ways, before, strict=True)]


@contextlib.contextmanager
def flood(ends: Sequence[End], frame: bytes) -> Iterator[None]:
    """Send the frame to all ends again and again, 1000 times a second."""
    ending = threading.Event()

    def run() -> None:
        while not ending.wait(_TURN):
            for end in ends:
                with contextlib.suppress(OSError):
                    end.send(frame)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
