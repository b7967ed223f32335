"""Control sockets: what the supervisor says to its children, and they to it.

One SOCK_SEQPACKET socket pair per child. A message is one JSON object, with
file descriptors beside it (segments are handed out as descriptors, never as
names). The child finds its end in the environment variable RINGLINE_CONTROL.

Guarantees (tests in tests/shm/test_control.py):
 - a message arrives whole, once, in order, with its descriptors
   (test_messages_arrive_whole_and_in_order, test_descriptors_travel_with_their_message)
 - the end of the other side is told apart from silence: Closed is raised
   (test_end_of_peer_is_told_apart_from_silence)
 - what a faulty peer sends is refused, and bounded in memory
   (test_what_is_not_a_message_is_refused, test_endless_message_is_refused)
 - no call waits longer than its limit (test_receive_ends_at_its_limit,
   test_send_to_a_peer_that_does_not_read_ends)
 - who sends only while heeded never waits (test_a_peer_that_does_not_read_is_seen)
 - received descriptors are not inherited by programs started later
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
from ringline.shm.messages import ErrorDescription

ENVIRONMENT = "RINGLINE_CONTROL"

# The kernel takes one datagram only when it fits the send buffer (212,992 bytes
# unless configured, its own overhead included), so longer messages go in pieces
# that fill a 32 KiB block. The first byte of a piece says whether another follows.
PIECE = 30_000
MORE, LAST = b"+", b"."
MESSAGE_MAX = 4 << 20  # bytes; a peer cannot make this process keep more

# Descriptors beside one message; a driver gets three segments and one per simulated
# card in a process of its own.
DESCRIPTORS_MAX = 20

Message = dict[str, Any]


class Closed(Exception):
    """The other side is gone: its process ended or closed the socket."""


class Garbled(RinglineError):
    """What came is not a message: the other side is faulty."""


class Control:
    """One end of a control socket.

    Not for several threads. `fileno()` serves selectors and poll.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._pieces: list[bytes] = []
        self._descriptors: list[int] = []
        self._bytes = 0

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """A new pair: the parent's end, and the bare socket for the child to inherit."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def from_environment(cls) -> Control:
        """The child's end. Call once: the variable is removed, and programs that
        this process starts do not inherit the socket.

        Raises RinglineError when the process was not started by a supervisor.
        """
        number = os.environ.pop(ENVIRONMENT, None)
        if number is None:
            raise RinglineError(
                f"{ENVIRONMENT} is not set: this program is started by `ringline run`, not by hand"
            )
        try:
            end = socket.socket(fileno=int(number))
        except (ValueError, OSError) as error:
            raise Bug(f"{ENVIRONMENT}={number} is not an open socket: {error}") from None
        end.set_inheritable(False)
        return cls(end)

    def fileno(self) -> int:
        """The descriptor, for selectors; -1 once closed."""
        return self._socket.fileno()

    @property
    def heeded(self) -> bool:
        """Whether the other side reads: most of the room for what waits to be read is free.

        What is not worth waiting for should be sent only then. It leaves three quarters of
        the room to what is.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def send(
        self, message: Mapping[str, Any], descriptors: Sequence[int] = (), *, seconds: float = 2.0
    ) -> None:
        """Send one message and copies of `descriptors`, which stay open here.

        Raises Closed when the other side is gone, TimeoutError when it did not
        read for `seconds`.
        """
        if len(descriptors) > DESCRIPTORS_MAX:
            raise Bug(f"{len(descriptors)} descriptors in one message, {DESCRIPTORS_MAX} fit")
        data = json.dumps(message, separators=(",", ":")).encode()
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        until = time.monotonic() + seconds
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            self._send_piece((LAST if last else MORE) + piece, descriptors if last else (), until)

    def _send_piece(self, piece: bytes, descriptors: Sequence[int], until: float) -> None:
        """Send first, then wait: poll calls a socket writable only while three
        quarters of its buffer are free, which long messages need not wait for."""
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
                    raise TimeoutError("the other side does not read its messages") from None
            except ConnectionError:
                raise Closed("the other side of the control socket is gone") from None

    def receive(self, seconds: float = 0.0) -> tuple[Message, list[int]] | None:
        """The next message with its descriptors, now the caller's to close.

        Returns None when none came within `seconds`. Raises Closed when the
        other side is gone and everything it sent has been read, Garbled when
        what came is not a message.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while poll.poll(seconds * 1000):
            complete = self._piece()
            if complete is not None:
                return complete
        return None

    def _piece(self) -> tuple[Message, list[int]] | None:
        """Read one piece; returns the message when it was the last one."""
        received = array.array("i")
        try:
            data, ancillary, seen, _ = self._take()
        except BlockingIOError:
            return None
        except ConnectionError:
            raise Closed("the other side of the control socket is gone") from None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
        self._descriptors += received
        if not data:
            self._forget()
            raise Closed("the other side of the control socket is gone")
        if seen & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            self._forget()
            raise Garbled("a control message came truncated: too long, or no descriptor left")
        self._pieces.append(data[1:])
        self._bytes += len(data)
        if self._bytes > MESSAGE_MAX or len(self._descriptors) > DESCRIPTORS_MAX:
            self._forget()
            raise Garbled(f"a control message is longer than {MESSAGE_MAX} bytes")
        if data[:1] == MORE:
            return None
        whole = b"".join(self._pieces)
        try:
            message = json.loads(whole)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._forget()
            raise Garbled(f"a control message is not a JSON object: {whole[:60]!r}")
        descriptors, self._descriptors = self._descriptors, []
        self._forget()
        return message, descriptors

    def _take(self) -> Any:
        """One datagram. Not socket.recv_fds: in Python 3.11 that ignores its flags."""
        space = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
        try:
            return self._socket.recvmsg(PIECE + 1, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The other side ended with something unread. The kernel tells that first,
            # and once; its own last words are still there.
            return self._socket.recvmsg(PIECE + 1, space, socket.MSG_CMSG_CLOEXEC)

    def _forget(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._pieces, self._bytes = [], [], 0

    def close(self) -> None:
        """Close this end; the other side then sees Closed."""
        self._forget()
        self._socket.close()


def describe(error: BaseException) -> ErrorDescription:
    """The `error` of a Failed message; `revive` makes the exception again."""
    return {"type": type(error).__name__, "message": str(error)}


def revive(error: Mapping[str, Any], kinds: Sequence[type[RinglineError]]) -> RinglineError:
    """The error that a child reported, as the class of `kinds` that it names.

    A child's word is not trusted with more than that: an unknown type becomes a
    plain RinglineError, a type of Python's a Bug.
    """
    name, message = str(error.get("type", "")), str(error.get("message", "no reason given"))
    known: dict[str, Callable[[str], RinglineError]] = {kind.__name__: kind for kind in kinds}
    if name in known:
        return known[name](message)
    return RinglineError(f"{name}: {message}" if name else message)
