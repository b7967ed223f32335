"""Guarantees of the control sockets between the supervisor and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringline.shm.control import ENVIRONMENT, Closed, Control, Garbled, describe, revive
from ringline.shm.errors import ConfigurationError, PluginError, RinglineError


@pytest.fixture
def ends() -> Iterator[tuple[Control, Control]]:
    ours, bare = Control.pair()
    theirs = Control(bare)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    messages = [{"do": "open", "n": n, "text": "x" * n * 1000} for n in range(0, 100, 7)]
    for message in messages:
        ours.send(message)
        assert theirs.receive(1) == (message, [])
    for message in messages[:5]:
        ours.send(message)
    assert [theirs.receive(1) for _ in range(5)] == [(m, []) for m in messages[:5]]
    assert theirs.receive() is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.text(), json_values), max_size=3))
def test_any_json_object_arrives_unchanged(messages: list[dict[str, object]]) -> None:
    ours, bare = Control.pair()
    theirs = Control(bare)
    try:
        for message in messages:
            ours.send(message)
        for message in messages:
            assert theirs.receive(1) == (message, [])
    finally:
        ours.close()
        theirs.close()


def test_descriptors_travel_with_their_message(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    read, write = os.pipe()
    ours.send({"do": "renew", "padding": "x" * 100_000}, [write])
    os.close(write)
    received = theirs.receive(1)
    assert received is not None
    _, (copy,) = received
    os.write(copy, b"through")
    os.close(copy)
    assert os.read(read, 100) == b"through"
    assert os.read(read, 100) == b"", "another copy of the descriptor is still open"
    os.close(read)


def test_received_descriptors_are_not_inheritable(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    read, write = os.pipe()
    ours.send({}, [read])
    received = theirs.receive(1)
    assert received is not None
    assert not os.get_inheritable(received[1][0])
    for descriptor in (read, write, *received[1]):
        os.close(descriptor)


def test_end_of_peer_is_told_apart_from_silence(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    assert theirs.receive() is None
    ours.send({"last": 1})
    ours.close()
    assert theirs.receive(1) == ({"last": 1}, [])
    with pytest.raises(Closed):
        theirs.receive(1)
    with pytest.raises(Closed):
        theirs.send({"nobody": "reads"})


def test_last_messages_arrive_although_the_peer_closed_with_unread_data(
    ends: tuple[Control, Control],
) -> None:
    ours, theirs = ends
    theirs.send({"unread": 1})
    ours.send({"last": 1})
    ours.send({"words": 2})
    ours.close()
    assert theirs.receive(1) == ({"last": 1}, [])
    assert theirs.receive(1) == ({"words": 2}, [])
    with pytest.raises(Closed):
        theirs.receive(1)


def test_a_peer_that_ends_between_pieces_leaves_no_descriptor(
    ends: tuple[Control, Control],
) -> None:
    ours, theirs = ends
    ours._socket.send(b"+" + b'{"half":')
    ours.close()
    with pytest.raises(Closed):
        theirs.receive(1)


@pytest.mark.parametrize(
    "piece", [b".{", b".[1]", b'."x"', b"." + b"[" * 30000, b".\xff", b"."], ids=repr
)
def test_what_is_not_a_message_is_refused(ends: tuple[Control, Control], piece: bytes) -> None:
    ours, theirs = ends
    ours._socket.send(piece)
    with pytest.raises(Garbled):
        theirs.receive(1)
    ours.send({"after": 1})
    assert theirs.receive(1) == ({"after": 1}, [])


def test_endless_message_is_refused(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    with pytest.raises(Garbled, match="has more than"):
        for _ in range(1000):
            ours._socket.send(b"+" + bytes(30_000))
            theirs.receive()


def test_receive_ends_at_its_limit(ends: tuple[Control, Control]) -> None:
    _, theirs = ends
    start = time.monotonic()
    assert theirs.receive(0.05) is None
    assert time.monotonic() - start >= 0.05


def test_pieces_do_not_extend_the_timeout(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    enough = threading.Event()

    def send_pieces() -> None:
        while not enough.wait(0.01):
            ours._socket.send(b"+x")

    sender = threading.Thread(target=send_pieces)
    sender.start()
    try:
        start = time.monotonic()
        assert theirs.receive(0.2) is None
        assert 0.2 <= time.monotonic() - start < 10.0
    finally:
        enough.set()
        sender.join()


def test_send_to_a_peer_that_does_not_read_ends(ends: tuple[Control, Control]) -> None:
    ours, _ = ends
    with pytest.raises(TimeoutError, match="does not read"):
        for _ in range(100_000):
            ours.send({"x": "y" * 1000}, seconds=0.05)


def test_a_peer_that_does_not_read_is_seen(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    sent = 0
    while ours.peer_reads:
        ours.send({"x": "y" * 1000}, seconds=0)
        sent += 1
        assert sent < 100_000, "the full buffer was not noticed"
    ours.send({"worth": "waiting for", "x": "y" * 20_000}, seconds=0)
    for _ in range(sent + 1):
        assert theirs.receive(1) is not None
    assert ours.peer_reads


def test_a_child_finds_its_end_in_the_environment() -> None:
    ours, bare = Control.pair()
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os; from ringline.shm.control import Control\n"
            "c = Control.from_environment(); m, _ = c.receive(10)\n"
            f"c.send({{'echo': m, 'left': '{ENVIRONMENT}' in os.environ,"
            " 'inheritable': os.get_inheritable(c.fileno())})",
        ],
        env={**os.environ, ENVIRONMENT: str(bare.fileno())},
        pass_fds=[bare.fileno()],
    )
    try:
        bare.close()
        ours.send({"hello": 1})
        answer = ours.receive(30)
        assert answer is not None
        assert answer[0] == {"echo": {"hello": 1}, "left": False, "inheritable": False}
        assert child.wait(30) == 0
        with pytest.raises(Closed):
            ours.receive(1)
    finally:
        child.kill()
        child.wait()
        ours.close()


def test_a_child_started_by_hand_names_the_right_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(RinglineError, match="ringline run"):
        Control.from_environment()


def test_an_error_keeps_its_class_across_the_socket() -> None:
    error = revive(describe(PluginError("setup raised ValueError")), [PluginError])
    assert type(error) is PluginError
    assert str(error) == "setup raised ValueError"
    assert type(revive(describe(ConfigurationError("x")), [PluginError])) is RinglineError
    other = revive(describe(KeyError("port")), [PluginError])
    assert type(other) is RinglineError
    assert str(other) == "KeyError: 'port'"
