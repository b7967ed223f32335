"""How far a long command is: one line on standard error, redrawn, only in a terminal."""

from __future__ import annotations

import os
import sys
import time

WIDTH = 30
EVERY = 0.1


class Progress:
    """A bar. `close` removes it; what is printed after that begins on an empty line."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = False
        self._wanted = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._at = 0.0

    def show(self, done: float, all_: float) -> None:
        """`done` of `all_` is done."""
        now = time.monotonic()
        if not self._wanted or now < self._at:
            return
        self._at = now + EVERY
        share = min(max(done / all_, 0.0), 1.0) if all_ else 0.0
        filled = int(share * WIDTH)
        bar = "#" * filled + "." * (WIDTH - filled)
        sys.stderr.write(f"\r{self._what} [{bar}] {100 * share:3.0f} %")
        sys.stderr.flush()
        self._shown = True

    def close(self) -> None:
        """Take the bar away."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False
