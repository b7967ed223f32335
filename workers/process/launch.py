"""How the programs of this package are started; for the supervisor and for tests."""

from __future__ import annotations

import os
import sys


def command(program: str = "process.process") -> list[str]:
    """The command line of a worker process, or of another module of `ringline.workers`."""
    start = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
    return [sys.executable, "-I", "-S", start, program]


def environment() -> dict[str, str]:
    """The environment: ours, and where modules are found, since there is no site.

    RINGLINE_CONTROL, the number of a worker's control socket, comes on top.
    """
    path = [os.path.abspath(folder) if folder else os.getcwd() for folder in sys.path]
    return {**os.environ, "RINGLINE_PATH": os.pathsep.join(path)}
