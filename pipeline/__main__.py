"""Entry point of the command `ringline`.

The imports take a tenth of a second. A Ctrl-C in that time would print a traceback, so
SIGINT has its default action until they are done: it ends the process, which has nothing
to clean up yet.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line; the exit code. A parent that ignores SIGINT keeps it ignored."""
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
