"""Standard input, output and error when they are closed or cannot be written.

The parent may start the command with closed streams; a reader may go away, or a disk be
full. A run must still end in order.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from ringline.shm.text import printable

closed: set[int] = set()  # the standard streams that were closed when the command began


def ensure() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise the next file to be opened, a segment for example, gets the number of that
    stream, and a library that prints writes into it.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
            closed.add(number)
    for stream in (sys.stdout, sys.stderr):
        # The name of a file may contain characters that the encoding of the terminal lacks.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # open until the process ends
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def mute(stream: TextIO) -> None:
    """Discard further output of `stream`, which failed: Python would report it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def complain(text: str) -> None:
    """Print each line of `text` to standard error after `ringline: `; ignore a failure. What a
    terminal would obey is escaped."""
    try:
        for line in text.rstrip("\n").split("\n"):
            print(f"ringline: {printable(line)}", file=sys.stderr, flush=True)
    except OSError:
        mute(sys.stderr)
