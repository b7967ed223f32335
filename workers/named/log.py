"""What a plugin says to the operator: `worker.log`.

A line goes to the log of the run at once, so it is there even if the plugin crashes in the next
instruction. A plugin that says too much loses lines, never packets or time: a line is never waited
for, and the number of lost lines is told
(tests/workers/test_log.py: test_more_lines_than_allowed_are_counted,
tests/workers/test_log.py: test_a_supervisor_that_does_not_read_delays_nothing).
"""

from __future__ import annotations

import time

from ringline.shm.bucket import Bucket
from ringline.shm.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 20  # lines at once
PER_SECOND = 2.0  # lines after that
LINE_MAX = 500  # characters


class Log:
    """The lines that a plugin writes into the log of the run.

        worker.log.warning("the file has %d lines", count)

    A line has the number of the worker, the name of the plugin and the level. Arguments are
    inserted as by Python's `logging`. A worker may write 20 lines at once, and 2 more each second;
    ringline tells how many it left out. A line has at most 500 characters, and characters that are
    not printable are escaped, line ends too.

    Call it from `setup`, `process` and `tick`. Compiled code cannot: count there, and say it in
    `tick`. A rehearsal (`worker.rehearsal`) writes nothing.
    """

    def __init__(
        self,
        write: Callable[[str, str], bool] | None = None,
        *,
        limited: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write(level, line)` returns whether it could write; without it nothing is written."""
        self._write = write
        self._bucket = Bucket(BURST, PER_SECOND) if limited else None
        self._clock = clock
        self._left_out = 0

    def info(self, text: object, *arguments: object) -> None:
        """Write what is worth knowing."""
        self._add("info", text, arguments)

    def warning(self, text: object, *arguments: object) -> None:
        """Write what the operator should look at."""
        self._add("warning", text, arguments)

    def error(self, text: object, *arguments: object) -> None:
        """Write what is wrong."""
        self._add("error", text, arguments)

    def _add(self, level: str, text: object, arguments: tuple[object, ...]) -> None:
        if self._write is None:
            return
        if self._bucket is not None and not self._bucket.take(self._clock()):
            self._left_out += 1
            return
        self._tell_left_out()
        if not self._write(level, _line(text, arguments)):
            self._left_out += 1

    def _flush(self) -> None:
        """Called by the worker between batches: tell how many lines were left out, if it may."""
        if self._left_out and (self._bucket is None or self._bucket.take(self._clock())):
            self._tell_left_out()

    def _tell_left_out(self) -> None:
        """Tell it even if that is one line too many."""
        if self._left_out and self._write is not None:
            lines = "1 line" if self._left_out == 1 else f"{self._left_out} lines"
            were = "was" if self._left_out == 1 else "were"
            if self._write("warning", f"{lines} of this plugin {were} left out: too many"):
                self._left_out = 0


def _line(text: object, arguments: tuple[object, ...]) -> str:
    """The text with its arguments, as one printable line."""
    try:
        told = str(text)
        if len(arguments) == 1 and isinstance(arguments[0], dict):  # "%(name)s", as in `logging`
            told = told % arguments[0]
        elif arguments:
            told = told % arguments
    except Exception as error:  # a wrong format must not drop a batch
        told = f"a line that cannot be formatted: {type(error).__name__}: {error}"
    cut = told[:LINE_MAX]
    return printable(cut) + ("..." if len(told) > LINE_MAX else "")
