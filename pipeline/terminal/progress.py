"""The progress of a long command: one line on standard error, redrawn, only in a terminal."""

from __future__ import annotations

import os
import sys
import time

WIDTH = 30  # characters of the bar
INTERVAL = 0.1  # seconds between two redraws at least


class Progress:
    """A progress bar after `label`. `close` removes it and leaves an empty line."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._shown = False
        self._wanted = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._next = 0.0

    def show(self, done: float, total: float) -> None:
        """Show that `done` of `total` is done; calls within INTERVAL are ignored."""
        now = time.monotonic()
        if not self._wanted or now < self._next:
            return
        self._next = now + INTERVAL
        share = min(max(done / total, 0.0), 1.0) if total else 0.0
        filled = int(share * WIDTH)
        bar = "#" * filled + "." * (WIDTH - filled)
        sys.stderr.write(f"\r\x1b[K{self.label} [{bar}] {100 * share:3.0f} %")
        sys.stderr.flush()
        self._shown = True

    def close(self) -> None:
        """Remove the bar."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False
