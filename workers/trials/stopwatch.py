"""Times the batches and ticks of a trial: a worker that is silent for too long is replaced.

`check` and `try` warn of what would end a worker in a run. The first batch may take as long as
`prepare`, there as here: it is not timed.
"""

from __future__ import annotations

import contextlib
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Stopwatch:
    """`limit` is the seconds of `worker.silence`."""

    def __init__(self, plugin: str, limit: float) -> None:
        self._plugin = plugin
        self._limit = limit
        self._slowest: dict[str, tuple[float, str]] = {}  # "a batch" or "tick": seconds, where
        self._batches = 0

    @contextlib.contextmanager
    def batch(self, place: str = "") -> Iterator[None]:
        """Around a batch; `place` says which, as the end of a sentence."""
        self._batches += 1
        with self._time("a batch", place, counts=self._batches > 1):
            yield

    @contextlib.contextmanager
    def tick(self) -> Iterator[None]:
        """Around a tick."""
        with self._time("tick", "", counts=True):
            yield

    def warnings(self) -> list[str]:
        """One sentence for the slowest batch and one for the slowest tick, if above the limit."""
        return [
            f"plugin {self._plugin}: {what} took {seconds:.1f} s{place}; a run replaces a worker "
            f"that is silent for {self._limit:g} s: make it shorter, or raise worker.silence"
            for what, (seconds, place) in self._slowest.items()
            if seconds > self._limit
        ]

    @contextlib.contextmanager
    def _time(self, what: str, place: str, *, counts: bool) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            if counts and seconds > self._slowest.get(what, (0.0, ""))[0]:
                self._slowest[what] = seconds, place
