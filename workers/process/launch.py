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
    return {
        **os.environ,
        # A line each: a folder may have a colon in its name.
        "RINGLINE_PATH": "\n".join(path),
        "RINGLINE_HOOKS": "1" if _hooks() else "",
    }


def _hooks() -> bool:
    """Whether something was added to the search for modules that this environment's packages
    may need. Python's own finders, those for distutils and that of an editable installation of
    ringline do not count: site takes some 20 ms of a worker's start."""
    known = ("_frozen_importlib", "_distutils_hack", "_virtualenv", "__editable___ringline_")
    return any(not getattr(finder, "__module__", "").startswith(known) for finder in sys.meta_path)
