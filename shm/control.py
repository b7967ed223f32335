"""Control sockets: messages between the supervisor and its children.

One SOCK_SEQPACKET socket pair per child. A message is one JSON object with file descriptors
beside it: a child gets segments as descriptors, not as names. The child finds its end of the
socket in the environment variable RINGLINE_CONTROL. The messages are in messages.py.

Guarantees (tests in tests/shm/test_control.py):
 - a message arrives whole, once, in order, with its descriptors
   (test_messages_arrive_whole_and_in_order, test_descriptors_travel_with_their_message)
 - a closed socket raises Closed, which differs from a socket without messages
   (test_end_of_peer_is_told_apart_from_silence)
 - what a faulty peer sends is refused, and uses a bounded amount of memory
   (test_what_is_not_a_message_is_refused, test_endless_message_is_refused)
 - no call waits longer than its timeout (test_receive_ends_at_its_limit,
   test_pieces_do_not_extend_the_timeout, test_send_to_a_peer_that_does_not_read_ends)
 - `peer_reads` is False before the buffer is full, so `send` need not wait
   (test_a_peer_that_does_not_read_is_seen)
 - programs started later do not inherit received descriptors
   (test_received_descriptors_are_not_inheritable)
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ringline.shm.errors import Bug, RinglineError
from ringline.shm.framing import ENVIRONMENT, LAST, MESSAGE_MAX, MORE, NOT_SET, PIECE, Closed
from ringline.shm.messages import ErrorDescription

__all__ = ["ENVIRONMENT", "Closed", "Control", "Garbled", "Message", "describe", "revive"]

# Descriptors beside one message: a driver gets three, and one per card process, of which
# there are at most RL_PORTS_MAX = 16; a worker gets three, and one per worker with its plugin.
DESCRIPTORS_MAX = 20

Message = dict[str, Any]


class Garbled(RinglineError):
    """The peer sent something other than a message: it is faulty."""


class Control:
    """One end of a control socket. Not thread-safe."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._pieces: list[bytes] = []
        self._descriptors: list[int] = []
        self._bytes = 0
        self.message_max = MESSAGE_MAX  # bytes of a message; a longer one is garbled

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """A new pair: our end, and the socket that the child inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def from_environment(cls) -> Control:
        """The child's end. Call it once: it removes the variable, and programs that this
        process starts do not inherit the socket.

        Raises RinglineError if no supervisor started this process.
        """
        number = os.environ.pop(ENVIRONMENT, None)
        if number is None:
            raise RinglineError(NOT_SET)
        try:
            end = socket.socket(fileno=int(number))
        except (ValueError, OSError) as error:
            raise Bug(f"{ENVIRONMENT}={number} is not an open socket: {error}") from None
        end.set_inheritable(False)
        return cls(end)

    def fileno(self) -> int:
        """The descriptor, for selectors and poll; -1 after `close`."""
        return self._socket.fileno()

    @property
    def peer_reads(self) -> bool:
        """Whether the peer reads its messages: three quarters of the send buffer are free.

        Send a message that is not important only then: the rest of the buffer stays free
        for important ones.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def send(
        self, message: Mapping[str, Any], descriptors: Sequence[int] = (), *, seconds: float = 2.0
    ) -> None:
        """Send one message and copies of `descriptors`, which stay open here.

        Raises Closed if the peer is gone, TimeoutError if it does not read for `seconds`.
        """
        if len(descriptors) > DESCRIPTORS_MAX:
            raise Bug(
                f"a message must have at most {DESCRIPTORS_MAX} descriptors, not {len(descriptors)}"
            )
        data = json.dumps(message, separators=(",", ":")).encode()
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        until = time.monotonic() + seconds
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            self._send_piece((LAST if last else MORE) + piece, descriptors if last else (), until)

    def _send_piece(self, piece: bytes, descriptors: Sequence[int], until: float) -> None:
        """Try to send before waiting: poll reports a socket as writable only while three
        quarters of its buffer are free, and a piece needs less."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while True:
            try:
                if descriptors:
                    socket.send_fds(self._socket, [piece], list(descriptors))
                else:
                    self._socket.send(piece)
                return
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    raise TimeoutError("the peer does not read its messages") from None
            except ConnectionError:
                raise Closed("the peer has closed the control socket") from None

    def receive(self, seconds: float = 0.0) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors, which the caller must close.

        Returns None if no message is complete within `seconds`. Raises Closed if the peer is
        gone and all its messages have been read, Garbled if the peer sent something other
        than a message.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        until = time.monotonic() + seconds
        while poll.poll(max(0.0, until - time.monotonic()) * 1000):
            complete = self._receive_piece()
            if complete is not None:
                return complete
        return None

    def _receive_piece(self) -> tuple[Message, list[int]] | None:
        """Receive one piece; returns the message if this piece completes it."""
        received = array.array("i")
        try:
            data, ancillary, seen, _ = self._receive_datagram()
        except BlockingIOError:
            return None
        except ConnectionError:
            raise Closed("the peer has closed the control socket") from None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
        self._descriptors += received
        if not data:
            self._discard()
            raise Closed("the peer has closed the control socket")
        if seen & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            self._discard()
            raise Garbled(
                "a control message was truncated: it is too long, or no descriptor is left"
            )
        self._pieces.append(data[1:])
        self._bytes += len(data)
        if self._bytes > self.message_max or len(self._descriptors) > DESCRIPTORS_MAX:
            self._discard()
            raise Garbled(
                f"a control message has more than {self.message_max} bytes "
                f"or {DESCRIPTORS_MAX} descriptors"
            )
        if data[:1] == MORE:
            return None
        whole = b"".join(self._pieces)
        try:
            message = json.loads(whole)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._discard()
            raise Garbled(f"a control message is not a JSON object: {whole[:60]!r}")
        descriptors, self._descriptors = self._descriptors, []
        self._discard()
        return message, descriptors

    def _receive_datagram(self) -> Any:
        """Receive one datagram. socket.recv_fds is no alternative: in Python 3.11 it ignores
        its flags."""
        space = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
        try:
            return self._socket.recvmsg(PIECE + 1, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The peer ended without reading all our messages. The kernel reports that
            # once, and first; the messages of the peer can still be read.
            return self._socket.recvmsg(PIECE + 1, space, socket.MSG_CMSG_CLOEXEC)

    def _discard(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._pieces, self._bytes = [], [], 0

    def close(self) -> None:
        """Close this end; the peer then gets Closed."""
        self._discard()
        self._socket.close()


def describe(error: BaseException) -> ErrorDescription:
    """The `error` of a Failed message; `revive` makes the exception again."""
    return {"type": type(error).__name__, "message": str(error)}


def revive(error: Mapping[str, Any], kinds: Sequence[type[RinglineError]]) -> RinglineError:
    """The error that a child reported, as the class in `kinds` with that name.

    Any other name gives a plain RinglineError that quotes the name. The values may have any
    type: the child may be a faulty worker.
    """
    name, message = str(error.get("type", "")), str(error.get("message", "no reason given"))
    known: dict[str, Callable[[str], RinglineError]] = {kind.__name__: kind for kind in kinds}
    if name in known:
        return known[name](message)
    return RinglineError(f"{name}: {message}" if name else message)
