"""Answer short requests on a listening socket, in the supervisor's event loop.

There is no thread, because answers read memory that the same loop maps and unmaps. A
slow or silent client holds a socket until its deadline, or until a new client needs the
place; it never blocks the loop.

Guarantees (tests in tests/pipeline/telemetry/test_server.py):
 - no call blocks (test_a_silent_client_does_not_hold_up_others), and one turn answers
   at most PER_TURN clients (test_many_requests_are_answered_over_several_turns)
 - a client is disconnected at its deadline (test_every_client_ends_at_its_deadline)
 - at most CLIENTS are connected; a new client replaces the oldest one
   (test_silent_clients_give_way_to_others)
 - a request longer than REQUEST_BYTES is cut off (test_endless_request_is_cut_off)
 - an answer that cannot be made disconnects its client and no other
   (test_an_answer_that_fails_ends_only_its_client)
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from ringline.pipeline.configuration import deadlines

CLIENTS = 64
PER_TURN = 8  # clients; an answer takes milliseconds, and the loop has other work
REQUEST_BYTES = 8192
TIMEOUT = deadlines.SERVE

# (bytes received so far, whether this is all) -> the answer; None when the request is
# not complete yet.
Respond = Callable[[bytes, bool], bytes | None]


@dataclass
class _Client:
    end: socket.socket
    until: float
    request: bytes = b""
    answer: memoryview | None = None


class Server:
    """A `Service` that answers the clients of `listener`, and closes it at the end."""

    def __init__(self, listener: socket.socket, respond: Respond) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._respond = respond
        self.on_failure: Callable[[Exception], None] | None = None  # None: raise the exception
        self._clients: list[_Client] = []
        self._selector = selectors.EpollSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Readable when `turn` has work."""
        return self._selector.fileno()

    @property
    def deadline(self) -> float | None:
        """The latest time to call `turn` (time.monotonic()); None without clients."""
        return min((client.until for client in self._clients), default=None)

    def turn(self) -> None:
        """Accept, read and write as far as possible without blocking."""
        ready = [key.data for key, _ in self._selector.select(0)]
        for client in [client for client in ready if client is not None][:PER_TURN]:
            self._serve(client)
        now = time.monotonic()
        for client in [client for client in self._clients if client.until <= now]:
            self._drop(client)
        if (
            None in ready
        ):  # the listener; last, because a new client may replace one that was just served
            self._accept()

    def close(self) -> None:
        """Close the listener and every client."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(PER_TURN):
            try:
                end, _ = self._listener.accept()
            except OSError:  # no client waits, it is gone again, or no file descriptor is left
                return
            if len(self._clients) == CLIENTS:
                self._drop(self._clients[0])
            end.setblocking(False)
            client = _Client(end, time.monotonic() + TIMEOUT)
            self._clients.append(client)
            self._selector.register(end, selectors.EVENT_READ, client)
            self._answer(client, False)

    def _serve(self, client: _Client) -> None:
        if client.answer:
            self._send(client)
            return
        try:
            data = client.end.recv(REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if client.answer is not None:  # the answer is sent: wait until the client closes
            if not data:
                self._drop(client)
            return
        client.request = (client.request + data)[:REQUEST_BYTES]
        self._answer(client, not data or len(client.request) == REQUEST_BYTES)

    def _answer(self, client: _Client, complete: bool) -> None:
        try:
            answer = self._respond(client.request, complete)
        except Exception as error:
            self._drop(client)
            if self.on_failure is None:
                raise
            self.on_failure(error)
            return
        if answer is not None:
            client.answer = memoryview(answer)
            self._selector.modify(client.end, selectors.EVENT_WRITE, client)
            self._send(client)
        elif complete:
            self._drop(client)

    def _send(self, client: _Client) -> None:
        assert client.answer is not None
        try:
            client.answer = client.answer[client.end.send(client.answer) :]
            if not client.answer:
                # Do not close yet: with unread input that would reset the connection, and
                # the client could lose the answer.
                client.end.shutdown(socket.SHUT_WR)
                self._selector.modify(client.end, selectors.EVENT_READ, client)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(client.end)
        client.end.close()
        self._clients.remove(client)
