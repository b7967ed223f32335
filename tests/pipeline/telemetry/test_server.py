"""The server in the supervisor's loop, with clients that misbehave."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.telemetry import server as module
from ringline.pipeline.telemetry.server import CLIENTS, PER_TURN, REQUEST_BYTES, Server

Connect = Callable[[], socket.socket]


def upper(request: bytes, complete: bool) -> bytes | None:
    """Answer a line with the line in capitals; a request without a newline gets no answer."""
    return request.upper() if request.endswith(b"\n") else None


@pytest.fixture
def server() -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2 * CLIENTS)
    served = Server(listener, upper)
    yield served
    served.close()


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    ends: list[socket.socket] = []

    def connect() -> socket.socket:
        end = socket.create_connection(server._listener.getsockname())
        end.settimeout(10)
        ends.append(end)
        return end

    yield connect
    for end in ends:
        end.close()


def turns(server: Server, seconds: float = 0.1) -> None:
    """Run 20 turns, spread over `seconds`."""
    for _ in range(20):
        server.turn()
        time.sleep(seconds / 20)


def test_a_request_is_answered_and_the_connection_ends(server: Server, connect: Connect) -> None:
    end = connect()
    end.sendall(b"hel")
    turns(server)
    end.sendall(b"lo\n")
    turns(server)
    assert end.recv(100) == b"HELLO\n"
    assert end.recv(100) == b""


def test_a_silent_client_does_not_hold_up_others(server: Server, connect: Connect) -> None:
    silent = connect()
    turns(server)
    other = connect()
    other.sendall(b"x\n")
    turns(server)
    assert other.recv(10) == b"X\n"
    assert server.deadline is not None
    silent.close()


def test_every_client_ends_at_its_deadline(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    silent = connect()
    lingering = connect()
    lingering.sendall(b"x\n")
    turns(server)
    assert lingering.recv(10) == b"X\n"  # the client stays connected
    turns(server, 0.5)
    assert server.deadline is None, "a client outlived its deadline"
    assert silent.recv(10) == b""


def test_an_answer_that_fails_ends_only_its_client(server: Server, connect: Connect) -> None:
    failed: list[Exception] = []
    server.on_failure = failed.append

    def respond(request: bytes, complete: bool) -> bytes | None:
        return bytes([1 // (b"bad" not in request)]) if request else None

    server._respond = respond
    bad, good = connect(), connect()
    bad.sendall(b"bad")
    good.sendall(b"good")
    turns(server)
    assert bad.recv(10) == b""
    assert good.recv(10) == b"\1"
    assert [type(error) for error in failed] == [ZeroDivisionError]


def test_silent_clients_give_way_to_others(server: Server, connect: Connect) -> None:
    silent = [connect() for _ in range(2 * CLIENTS)]
    turns(server)
    assert len(server._clients) == CLIENTS
    for end in silent[:CLIENTS]:
        assert end.recv(10) == b""
    other = connect()
    other.sendall(b"x\n")
    turns(server)
    assert other.recv(10) == b"X\n", "it had to wait for a silent client"
    assert len(server._clients) == CLIENTS


def test_many_requests_are_answered_over_several_turns(server: Server, connect: Connect) -> None:
    ends = [connect() for _ in range(3 * PER_TURN)]
    turns(server)
    for end in ends:
        end.sendall(b"x\n")
    before = 0
    while before < len(ends):
        server.turn()
        answered = sum(client.answer is not None for client in server._clients)
        assert before < answered <= before + PER_TURN
        before = answered
    assert [end.recv(10) for end in ends] == [b"X\n"] * len(ends)


def test_endless_request_is_cut_off(server: Server, connect: Connect) -> None:
    for first in (REQUEST_BYTES + 1, REQUEST_BYTES // 2 + 7):
        end = connect()
        end.sendall(b"x" * first)
        turns(server)
        with contextlib.suppress(ConnectionError):  # the server may have closed it already
            end.sendall(b"x" * first)
        turns(server)
        assert not server._clients


def test_an_answer_longer_than_any_buffer_arrives_whole() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    answer = bytes(range(256)) * 50_000
    server = Server(listener, lambda request, complete: answer)
    end = socket.create_connection(listener.getsockname())
    end.setblocking(False)
    received = bytearray()
    while len(received) < len(answer):
        server.turn()
        try:
            data = end.recv(1 << 20)
        except BlockingIOError:
            continue
        assert data, "the connection ended early"
        received += data
    assert received == answer
    end.close()
    turns(server)
    assert not server._clients
    server.close()


def test_a_client_that_closes_before_its_answer_disturbs_nothing(
    server: Server, connect: Connect
) -> None:
    for _ in range(5):
        end = connect()
        end.sendall(b"x\n")
        end.close()
    turns(server)
    assert not server._clients
