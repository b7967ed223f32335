"""What a service manager wants to know: ready, alive, stopping (sd_notify(3)).

One datagram of KEY=VALUE lines to the socket named in NOTIFY_SOCKET. Without
that variable nothing is sent. Failing to tell is never a reason to stop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Tells the service manager. `watchdog_seconds` is how often it wants a sign
    of life, at the latest; None when it does not.

    The variables are removed from `environment`, so that no child speaks for us.
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
        """The run serves; `status` is the line that `systemctl status` shows."""
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1\nSTATUS=draining")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        # "@" stands for the zero byte of the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
                end.sendto(text.encode(), address)
        except OSError:
            pass
