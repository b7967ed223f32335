"""The main function of the driver and of a card process.

Guarantees (tests in tests/shm/test_child_main.py):
 - signals that are for the supervisor do not end the process
   (test_signals_for_the_supervisor_are_ignored)
 - an error is sent to the supervisor and decides the exit code
   (test_an_error_is_sent_and_decides_the_exit_code)
 - a stopped process (SIGSTOP) continues when its supervisor ends, and sees its control
   socket close (test_a_stopped_child_sees_the_end_of_its_supervisor)
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from ringline.shm import signals
from ringline.shm._shm import lib
from ringline.shm.control import Closed, Control, describe
from ringline.shm.errors import RinglineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ringline.shm.messages import Failed


def run_child(serve: Callable[[Control], None]) -> int:
    """Call `serve` with the control socket of this process; returns the exit code."""
    # A terminal or a service manager may signal all processes; the supervisor decides the end.
    signals.ignore(signals.IGNORED_BY_CHILDREN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    supervisor = Control.from_environment()
    lib.rl_die_with_parent(signal.SIGCONT, os.getppid())
    try:
        serve(supervisor)
    except RinglineError as error:
        failed: Failed = {"event": "failed", "error": describe(error)}
        with contextlib.suppress(Closed, TimeoutError):
            supervisor.send(failed)
        return error.exit_code
    return 0
