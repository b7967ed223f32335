"""The command lines and environment of this package's programs."""

from __future__ import annotations

import os
import sys


def command(program: str = "process.process") -> list[str]:
    """The command line of a worker process, or of another module of `ringline.workers`."""
    start = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
    return [sys.executable, "-I", "-S", start, program]


def environment() -> dict[str, str]:
    """Our environment with the module search path, since the program starts without site.

    For a worker the caller adds RINGLINE_CONTROL, the file descriptor of its control socket.
    """
    path = [os.path.abspath(folder) if folder else os.getcwd() for folder in sys.path]
    return {**os.environ, "RINGLINE_PATH": os.pathsep.join(path)}
