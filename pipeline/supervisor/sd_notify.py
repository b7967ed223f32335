"""Notifications for the service manager: ready, alive, stopping (sd_notify(3)).

A notification is one datagram of KEY=VALUE lines, sent to the socket that NOTIFY_SOCKET
names. Without that variable nothing is sent. A failed notification does not stop a run.

Guarantees (tests in tests/pipeline/supervisor/test_sd_notify.py):
 - each state is sent as sd_notify(3) describes it, and children do not inherit the variables
   (test_every_state_is_sent)
 - a missing or closed socket is not an error
   (test_without_a_manager_nothing_is_sent, test_a_manager_that_is_gone_is_no_error)
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Sends notifications. `watchdog_seconds` is the longest time that the service manager
    allows between two calls of `alive`; None if it has no watchdog.

    The variables are removed from `environment`, so that no child can send in our name.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._address = variables.pop("NOTIFY_SOCKET", "")
        microseconds = variables.pop("WATCHDOG_USEC", "")
        watched = variables.pop("WATCHDOG_PID", "")
        self.watchdog_seconds: float | None = None
        if self._address and microseconds.isdigit() and watched in ("", str(os.getpid())):
            self.watchdog_seconds = int(microseconds) / 1e6

    def ready(self, status: str) -> None:
        """The run is up; `systemctl status` shows `status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Reset the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The run has begun to end."""
        self._send("STOPPING=1\nSTATUS=draining")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # "@" stands for the zero byte of the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
                end.sendto(text.encode(), address)
        except OSError:
            pass
