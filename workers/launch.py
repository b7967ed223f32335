"""How to start a worker process; for the supervisor and for tests."""

from __future__ import annotations

import os
import sys


def command() -> list[str]:
    """The command line. Isolated and without site: that saves 25 of 38 ms."""
    return [sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "process.py")]


def environment() -> dict[str, str]:
    """The environment: ours, and where modules are found, since there is no site.

    RINGLINE_CONTROL, the number of the control socket, comes on top.
    """
    return {**os.environ, "RINGLINE_PATH": os.pathsep.join(path for path in sys.path if path)}
