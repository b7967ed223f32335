"""Standard input, output and error output: there, whatever became of them.

Who starts the command may have closed them, and who reads may go or run out of room. Neither
is a reason for a run to end otherwise than in order.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


def ensure() -> None:
    """Put the null device where a standard stream was closed.

    Else the next file that is opened, a segment for instance, gets its number, and what
    some library means for a terminal is written into it.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free: this one
            os.set_inheritable(number, True)
    for stream in (sys.stdout, sys.stderr):
        # The name of a file may hold what the terminal's encoding does not have.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def mute(stream: TextIO) -> None:
    """Write nothing more to `stream`: it failed, and Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def complain(text: str) -> None:
    """Each line of `text` on the error output, with our name; lost when nobody can read it."""
    try:
        for line in text.splitlines():
            print(f"ringline: {line}", file=sys.stderr, flush=True)
    except OSError:
        mute(sys.stderr)
