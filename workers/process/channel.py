"""The worker's end of its control socket.

It implements the protocol of ringline.shm.control with modules that are fast to import. A
worker with a plugin in C starts in 13 ms; to import json and socket would take 9 ms, the C
modules below them take 1 ms.
"""

from __future__ import annotations

import _socket
import os

from ringline.shm.errors import Bug, RinglineError
from ringline.shm.framing import ENVIRONMENT, LAST, MESSAGE_MAX, MORE, NOT_SET, PIECE, Closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.shm.messages import FromWorker

__all__ = ["Channel", "Closed"]

_DESCRIPTORS = 20  # of a message: see control.py
_SECONDS = 2.0  # timeout of send; a live supervisor reads its sockets at once


class Channel:
    """The socket whose file descriptor the environment names; children do not inherit it."""

    def __init__(self) -> None:
        number = os.environ.pop(ENVIRONMENT, None)
        if number is None:
            raise RinglineError(NOT_SET)
        self._socket = _socket.socket(fileno=int(number))
        os.set_inheritable(self._socket.fileno(), False)
        self._pieces: list[bytes] = []
        self._descriptors: list[int] = []

    def receive(self, seconds: float = 0.0) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its file descriptors; None if none arrives within `seconds`.

        Raises Closed when the supervisor is gone.
        """
        self._socket.settimeout(seconds)
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    PIECE + 1, _socket.CMSG_SPACE(4 * _DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, TimeoutError):
                return None
            except ConnectionError:
                raise Closed from None
            if not data:
                raise Closed
            for level, kind, content in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    whole = len(content) - len(content) % 4
                    self._descriptors += memoryview(content)[:whole].cast("i")
            self._pieces.append(data[1:])
            if sum(map(len, self._pieces)) > MESSAGE_MAX:
                raise Bug(f"a control message has more than {MESSAGE_MAX} bytes")
            if data[:1] == LAST:
                message = _decode(b"".join(self._pieces).decode())
                descriptors = self._descriptors
                self._pieces, self._descriptors = [], []
                return message, descriptors

    def send(self, message: FromWorker) -> None:
        """Send a message.

        Raises Closed when the supervisor is gone, or when it reads nothing for 2 s.
        """
        data = _encode(message).encode()
        self._socket.settimeout(_SECONDS)
        try:
            while len(data) > PIECE:
                self._socket.send(MORE + data[:PIECE])
                data = data[PIECE:]
            self._socket.send(LAST + data)
        except TimeoutError:
            raise Closed from None
        except ConnectionError:
            raise Closed from None

    def try_send(self, message: FromWorker) -> bool:
        """Send a message that fits into one piece, without waiting; whether that was possible."""
        self._socket.settimeout(0.0)
        try:
            self._socket.send(LAST + _encode(message).encode())
        except OSError:  # the supervisor is busy or gone
            return False
        return True


def _decode(text: str) -> dict[str, Any]:
    """Decode JSON with the C scanner of the json module, which takes 5 ms to import."""
    message, _ = _scanner()(text, 0)
    if not isinstance(message, dict):
        raise Bug(f"a control message is not an object: {text[:60]!r}")
    return message


def _scanner() -> Any:
    import _json

    class Rules:
        strict = True
        object_hook = object_pairs_hook = None
        parse_float, parse_int = float, int
        parse_constant = float

    return _json.make_scanner(Rules)  # type: ignore[arg-type]  # the scanner only reads its attributes


def _encode(value: Any) -> str:
    """Encode objects, lists, strings, numbers, true, false and null as JSON."""
    import _json

    if isinstance(value, dict):
        return "{" + ",".join(f"{_encode(str(k))}:{_encode(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_encode, value)) + "]"
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
