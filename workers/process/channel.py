"""The worker's end of its control socket.

It speaks what ringline.shm.control describes, in a fraction of the time to import:
json and socket take 9 of the 13 ms in which a worker with a plugin in C is to run,
the C modules beneath them take one.
"""

from __future__ import annotations

import _socket
import os

from ringline.shm.errors import Bug, RinglineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.shm.messages import FromWorker

ENVIRONMENT = "RINGLINE_CONTROL"

_PIECE = 30_000  # bytes of one datagram's content, as in ringline.shm.control
_MESSAGE_MAX = 4 << 20
_DESCRIPTORS = 8
_SECONDS = 2.0  # the supervisor reads its sockets all the time


class Closed(Exception):
    """The supervisor is gone."""


class Channel:
    """The socket whose descriptor is in the environment; it is not inherited further."""

    def __init__(self) -> None:
        number = os.environ.pop(ENVIRONMENT, None)
        if number is None:
            raise RinglineError(
                f"{ENVIRONMENT} is not set: this program is started by `ringline run`, not by hand"
            )
        self._socket = _socket.socket(fileno=int(number))
        os.set_inheritable(self._socket.fileno(), False)
        self._pieces: list[bytes] = []
        self._descriptors: list[int] = []

    def receive(self, seconds: float = 0.0) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors, or None when none came in time.

        Raises Closed when the supervisor is gone.
        """
        self._socket.settimeout(seconds)
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _PIECE + 1, _socket.CMSG_SPACE(4 * _DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC
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
            if sum(map(len, self._pieces)) > _MESSAGE_MAX:
                raise Bug("a control message is without end")
            if data[:1] == b".":
                message = _decode(b"".join(self._pieces).decode())
                descriptors = self._descriptors
                self._pieces, self._descriptors = [], []
                return message, descriptors

    def send(self, message: FromWorker) -> None:
        """Send a message; what the supervisor does not read for 2 s is lost with it.

        Raises Closed when the supervisor is gone.
        """
        data = _encode(message).encode()
        self._socket.settimeout(_SECONDS)
        try:
            while len(data) > _PIECE:
                self._socket.send(b"+" + data[:_PIECE])
                data = data[_PIECE:]
            self._socket.send(b"." + data)
        except TimeoutError:
            raise Closed from None
        except ConnectionError:
            raise Closed from None


def _decode(text: str) -> dict[str, Any]:
    """JSON by the scanner beneath the json module: that module costs 5 ms to import."""
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

    return _json.make_scanner(Rules)  # type: ignore[arg-type]  # it only reads attributes


def _encode(value: Any) -> str:
    """JSON of what workers say: objects, lists, strings, numbers, true, false and null."""
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
