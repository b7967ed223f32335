"""The progress of an analysis: share, packets and bytes per second, and the time left.

In a terminal it is one line, redrawn, with what fits. Elsewhere, such as in a log, it is a line now
and then. What was done before the first call counts as done, but not for the rate.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from ringline.pipeline.terminal.progress import INTERVAL

LINES = 30.0  # seconds between two lines outside a terminal
BEGIN = 0.5  # seconds before a rate means something
BARS = (30, 20, 10, 0)  # characters of the bar: the longest that fits


class RateBar:
    """A progress bar after `label`. `close` removes it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._is_drawn = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._began = time.monotonic()
        self._next = self._began + (0.0 if self._is_drawn else LINES)
        self._before: tuple[int, int] | None = None  # bytes and packets of the first call
        self._shown = False

    def show(self, done: int, everything: int, packets: int) -> None:
        """Show that `done` bytes of all are done, and so many packets. The first call tells what
        was done before; calls that come too soon are ignored."""
        now = time.monotonic()
        if self._before is None:
            self._before, self._began = (done, packets), now
        if now < self._next:
            return
        share = min(max(done / everything, 0.0), 1.0) if everything else 0.0
        percent = f"{int(100 * share):3} %"  # 100 % is all
        details = self._details(done, everything, packets, now - self._began)
        if self._is_drawn:
            self._next = now + INTERVAL
            self._write(f"\r\x1b[K{fitting(self._label, share, percent, details, _columns())}")
            self._shown = True
        else:
            self._next = now + LINES
            self._write(f"{self._label}: {', '.join([percent.strip(), *details])}\n")

    def _details(self, done: int, everything: int, packets: int, passed: float) -> list[str]:
        """The time left and the rates, the most important first."""
        assert self._before is not None
        new, new_packets = done - self._before[0], packets - self._before[1]
        if passed < BEGIN or new <= 0:
            return []
        left = passed * max(everything - done, 0) / new
        return [
            f"{clock(left)} left",
            f"{new / passed / 1e6:.{1 if new / passed < 1e7 else 0}f} MB/s",
            f"{_packets(new_packets / passed)} packets/s",
        ]

    @staticmethod
    def _write(text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it
            sys.stderr.write(text)
            sys.stderr.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._shown:
            self._write("\r\x1b[2K")
            self._shown = False


def fitting(label: str, share: float, percent: str, details: list[str], columns: int) -> str:
    """As much as fits into `columns` of a terminal: the share always, then the time left, a short
    bar, the rates, a longer bar."""
    for count in range(len(details), -1, -1):
        for width in BARS:
            filled = int(share * width)
            bar = f"[{'#' * filled}{'.' * (width - filled)}] " if width else ""
            text = f"{label} {bar}{', '.join([percent, *details[:count]])}"
            is_short = width == 0 and count > 1  # rather a bar than the last rate
            if len(text) < columns and not is_short:
                return text
    return percent.strip()[: max(columns - 1, 0)]


def clock(seconds: float) -> str:
    """`0:45`, `1:02:03`, `3 d 4 h`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _packets(rate: float) -> str:
    return f"{rate / 1e6:.2f} M" if rate >= 1e5 else f"{rate:,.0f}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
