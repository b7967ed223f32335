"""Finds out quickly that an engine is not there; its own client tries for long."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.text import printable

_SCHEMES = ("", "tcp", "tls", "ws", "wss", "ray")  # what listens on a TCP port
_AGAIN = 0.2  # between two attempts


def check(name: str, address: str, patience: float) -> None:
    """Raise EnvironmentLacks when connections to the engine `name` at `address` are refused for
    `patience` seconds. It says nothing of an address that it does not understand."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return
    if parts.scheme not in _SCHEMES or not host or not port:
        return
    until = time.monotonic() + patience
    while _is_refused(host, port):
        if time.monotonic() > until:
            raise EnvironmentLacks(
                f"{name} at {printable(address)} cannot be reached: the connection is refused: "
                f"nothing listens there; start {name}, or correct the address"
            )
        time.sleep(_AGAIN)


def _is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), deadlines.ANALYSIS_REFUSED, all_errors=True).close()
    except ExceptionGroup as errors:  # one for each address of the host
        return errors.subgroup(ConnectionRefusedError) is not None
    except (OSError, ValueError):  # no such host
        return False
    return False
