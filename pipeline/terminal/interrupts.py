"""Ctrl-C while a command imports its modules."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def fatal() -> Iterator[None]:
    """SIGINT ends the process inside the block, which does nothing that must be cleaned up.

    Python raises KeyboardInterrupt wherever it is, and loses it in a callback of its import
    system: then the command would go on. A handler that is no default one stays.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
