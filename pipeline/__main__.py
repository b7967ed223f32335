"""The command `ringline`, from the first moment on.

What it needs takes a tenth of a second to import, and a Ctrl-C then would show where in the
imports it came. Nothing has to be undone yet, so it simply ends the process.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line; the exit code."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ringline.pipeline.commands.cli import main as command_line

    try:
        if not ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command_line()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
