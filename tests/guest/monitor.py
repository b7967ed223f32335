"""QEMU's monitor: commands to the machine itself, and what it reports.

The protocol is QMP (docs/interop/qmp-spec of QEMU): JSON objects on a stream, one greeting at the
beginning, then an answer for each command, and events at any time. The stream is a socket pair, so
nobody else can reach it.

Guarantees (tests in tests/guest/test_monitor.py):
 - a command that QEMU refuses says why (test_a_refused_command_says_why)
 - waiting for an event ends at its deadline, and keeps the other events
   (test_an_event_is_waited_for_until_a_deadline)
"""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any

ANSWER = 120.0  # seconds: QEMU answers between two pieces of what the guest executes


class Refused(Exception):
    """QEMU refused a command; the text says why."""


class Monitor:
    """The monitor of a running QEMU, behind the socket `near`.

    Every method raises EOFError when QEMU has ended, and TimeoutError when it does not answer.
    """

    def __init__(self, near: socket.socket) -> None:
        self._socket = near
        self._received = b""
        self._events: list[dict[str, Any]] = []
        self._greeted = False

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Give a command, and return what QEMU returns. Raises Refused."""
        if not self._greeted:
            self._message(time.monotonic() + ANSWER)
            self._greeted = True
            self.execute("qmp_capabilities")
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        until = time.monotonic() + ANSWER
        while True:
            message = self._message(until)
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise Refused(f"{command}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_for(self, event: str, seconds: float, **data: Any) -> dict[str, Any]:
        """The data of the next event with this name, and with these values in its data. One that
        came before counts, unless it was returned already. Raises TimeoutError."""
        until = time.monotonic() + seconds
        looked = 0
        while True:
            for each in self._events[looked:]:
                found: dict[str, Any] = each.get("data", {})
                if each["event"] == event and data.items() <= found.items():
                    self._events.remove(each)
                    return found
            looked = len(self._events)
            self._events.append(self._message(until))

    def _message(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                raise TimeoutError
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise EOFError
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
