"""Answer short requests on a listening socket, in the supervisor's own loop.

No thread: what is asked for is read from memory that the same loop maps and
unmaps. A client that is slow or silent costs a socket until its deadline, or until
others need its place, and never the loop's time.

Guarantees (tests in tests/pipeline/telemetry/test_server.py):
 - no call waits (test_a_silent_client_does_not_hold_up_others), and one turn answers
   PER_TURN clients at most (test_many_requests_are_answered_over_several_turns)
 - every client is gone by its deadline (test_every_client_ends_at_its_deadline)
 - at most CLIENTS are held, and silent ones keep nobody out: when there are more,
   the one that came first has to go (test_silent_clients_give_way_to_others)
 - a request is held up to REQUEST_BYTES (test_endless_request_is_cut_off)
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

CLIENTS = 64
PER_TURN = 8  # an answer takes milliseconds, and the loop has other work
REQUEST_BYTES = 8192
SECONDS = 2.0  # from connecting to the last byte of the answer

# Given what a client has sent, and whether there will be no more of it, the whole
# answer; None: the request is not complete.
Respond = Callable[[bytes, bool], bytes | None]


@dataclass
class _Client:
    end: socket.socket
    until: float
    request: bytes = b""
    answer: memoryview | None = None


class Server:
    """Serves a listening socket, which it owns. `fileno()` is readable when `turn` has work."""

    def __init__(self, listener: socket.socket, respond: Respond) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._respond = respond
        self._clients: list[_Client] = []
        self._selector = selectors.EpollSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """For the loop that calls `turn`."""
        return self._selector.fileno()

    @property
    def deadline(self) -> float | None:
        """When `turn` must be called at the latest (time.monotonic())."""
        return min((client.until for client in self._clients), default=None)

    def turn(self) -> None:
        """Do what can be done without waiting."""
        ready = [key.data for key, _ in self._selector.select(0)]
        for client in [client for client in ready if client is not None][:PER_TURN]:
            self._serve(client)
        now = time.monotonic()
        for client in [client for client in self._clients if client.until <= now]:
            self._drop(client)
        if None in ready:  # the listener; last, since others may have to go for whom it has
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
            except OSError:  # nobody else is waiting, or gone again, or no descriptors left
                return
            if len(self._clients) == CLIENTS:
                self._drop(self._clients[0])
            end.setblocking(False)
            client = _Client(end, time.monotonic() + SECONDS)
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
        if client.answer is not None:  # all is said: this only waits for the client to go
            if not data:
                self._drop(client)
            return
        client.request = (client.request + data)[:REQUEST_BYTES]
        self._answer(client, not data or len(client.request) == REQUEST_BYTES)

    def _answer(self, client: _Client, complete: bool) -> None:
        answer = self._respond(client.request, complete)
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
                # Closing at once would reset the connection if something is still
                # unread, and the client might lose its answer.
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
