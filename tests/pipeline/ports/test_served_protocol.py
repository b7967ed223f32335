"""The server's side of vfio-user, with a device that only keeps what it is told."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.served.protocol import Connection, Garbled

from .vfio_user_client import (
    DEVICE_INFO,
    DMA_MAP,
    IRQ_INFO,
    READ,
    REGION_INFO,
    SET_IRQS,
    VERSION,
    WRITE,
)

MEMORY = 64  # bytes of region 0


class Kept:
    """A device with one region and two vectors of the third kind."""

    def __init__(self) -> None:
        self.regions = [MEMORY, 0]
        self.vectors = [0, 0, 2]
        self.memory = bytearray(MEMORY)
        self.calls: list[tuple[Any, ...]] = []
        self.fds: list[int] = []

    def read(self, region: int, offset: int, size: int) -> bytes:
        return bytes(self.memory[offset : offset + size])

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.memory[offset : offset + len(data)] = data

    def map_memory(self, address: int, size: int, fd: int, offset: int) -> None:
        self.calls.append(("map", address, size, offset, os.fstat(fd).st_size))

    def unmap_memory(self, address: int, size: int) -> None:
        self.calls.append(("unmap", address, size))

    def set_vectors(self, start: int, fds: Sequence[int]) -> None:
        self.calls.append(("vectors", start, len([fd for fd in fds if fd >= 0])))
        self.fds += [fd for fd in fds if fd >= 0]

    def trigger(self, start: int, count: int) -> None:
        self.calls.append(("trigger", start, count))

    def reset(self) -> None:
        self.calls.append(("reset",))


class Talk:
    """A client's end, and the server's end, which answers when it is asked to."""

    def __init__(self) -> None:
        self.near, far = socket.socketpair()
        self.near.settimeout(10)
        self.device = Kept()
        self.connection = Connection(far, self.device)

    def ask(
        self, command: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0
    ) -> tuple[int, bytes]:
        """The error number of the answer, and its payload."""
        head = struct.pack("<HHIII", 7, command, 16 + len(payload), flags, 0)
        socket.send_fds(self.near, [head + payload], list(fds))
        assert self.connection.serve()
        answer = self.near.recv(1 << 16)
        number, same, size, kind, error = struct.unpack_from("<HHIII", answer)
        assert (number, same, size) == (7, command, len(answer))
        assert kind == (0x21 if error else 0x1)
        return error, answer[16:]


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    with made.near, made.connection:
        assert made.ask(1, struct.pack("<HH", 0, 1))[0] == 0
        yield made
    for fd in made.device.fds:
        os.close(fd)


def test_the_version_is_negotiated() -> None:
    talk = Talk()
    with talk.near, talk.connection:
        assert talk.ask(1, struct.pack("<HH", 1, 0))[0] == errno.EINVAL
        error, answer = talk.ask(1, struct.pack("<HH", 0, 1) + b'{"capabilities":{}}\0')
        assert (error, answer[:4]) == (0, struct.pack("<HH", 0, 1))
        assert b'"max_msg_fds": 16' in answer
        assert answer.endswith(b"\0")


def test_a_command_before_the_version_ends_the_talk() -> None:
    talk = Talk()
    with talk.near, talk.connection:
        talk.near.send(struct.pack("<HHIII", 7, DEVICE_INFO, 16, 0, 0))
        with pytest.raises(Garbled, match="it sent command 4 before the version"):
            talk.connection.serve()


@pytest.mark.parametrize("size", [15, 1 << 30])
def test_a_message_with_an_impossible_size_ends_the_talk(size: int) -> None:
    talk = Talk()
    with talk.near, talk.connection:
        talk.near.send(struct.pack("<HHIII", 7, 1, size, 0, 0))
        with pytest.raises(Garbled, match=f"with {size} bytes"):
            talk.connection.serve()


def test_a_device_says_what_it_has(talk: Talk) -> None:
    assert talk.ask(DEVICE_INFO, bytes(16))[1] == struct.pack("<IIII", 16, 3, 2, 3)
    region = talk.ask(REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 0, 0, 0, 0))[1]
    assert region == struct.pack("<IIIIQQ", 32, 3, 0, 0, MEMORY, 0)
    absent = talk.ask(REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 1, 0, 0, 0))[1]
    assert absent == struct.pack("<IIIIQQ", 32, 0, 1, 0, 0, 1 << 40)
    assert talk.ask(IRQ_INFO, struct.pack("<IIII", 16, 0, 2, 0))[1][12:] == b"\2\0\0\0"


def test_regions_are_read_and_written(talk: Talk) -> None:
    assert talk.ask(WRITE, struct.pack("<QII", 4, 0, 4) + b"abcd")[0] == 0
    assert talk.ask(READ, struct.pack("<QII", 4, 0, 4))[1][16:] == b"abcd"


def test_a_message_may_come_in_pieces(talk: Talk) -> None:
    message = struct.pack("<HHIIIQII", 7, READ, 32, 0, 0, 0, 0, 4)
    for piece in (message[:5], message[5:20], message[20:]):
        talk.near.send(piece)
        assert talk.connection.serve()
    assert len(talk.near.recv(100)) == 36


@pytest.mark.parametrize(
    ("command", "payload", "error"),
    [
        (READ, struct.pack("<QII", MEMORY, 0, 1), errno.EINVAL),
        (READ, struct.pack("<QII", (1 << 64) - 1, 0, 4), errno.EINVAL),
        (READ, struct.pack("<QII", 0, 9, 4), errno.EINVAL),
        (READ, b"short", errno.EINVAL),
        (WRITE, struct.pack("<QII", 0, 0, 4) + b"abc", errno.EINVAL),
        (REGION_INFO, struct.pack("<III", 12, 0, 2), errno.EINVAL),
        (SET_IRQS, struct.pack("<IIIII", 20, 0x24, 2, 1, 2), errno.EINVAL),
        (DMA_MAP, b"", errno.EINVAL),
        (99, b"", errno.ENOTSUP),
    ],
)
def test_a_wrong_request_gets_an_error(
    talk: Talk, command: int, payload: bytes, error: int
) -> None:
    assert talk.ask(command, payload) == (error, b"")
    assert talk.ask(DEVICE_INFO, bytes(16))[0] == 0


def test_memory_and_vectors_reach_the_device(talk: Talk) -> None:
    fd = os.memfd_create("memory", 0)
    os.ftruncate(fd, 8192)
    talk.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 4096, 1 << 32, 4096), [fd])
    talk.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 1, 0, 1 << 33, 4096), [fd])  # read-only
    talk.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 1 << 33, 4096))  # without a descriptor
    talk.ask(3, struct.pack("<IIQQ", 24, 0, 1 << 32, 4096))
    talk.ask(SET_IRQS, struct.pack("<IIIII", 20, 0x24, 2, 0, 2), [fd])
    talk.ask(SET_IRQS, struct.pack("<IIIII", 20, 0x21, 2, 1, 1))
    talk.ask(SET_IRQS, struct.pack("<IIIII", 20, 0x22, 2, 0, 2) + b"\0\1")
    talk.ask(SET_IRQS, struct.pack("<IIIII", 20, 0x21, 2, 0, 0))
    talk.ask(13)
    os.close(fd)
    assert talk.device.calls == [
        ("map", 1 << 32, 4096, 4096, 8192),
        ("unmap", 1 << 32, 4096),
        ("vectors", 0, 1),
        ("trigger", 1, 1),
        ("trigger", 1, 1),
        ("vectors", 0, 0),
        ("reset",),
    ]


def test_no_descriptor_is_left(talk: Talk) -> None:
    fd = os.memfd_create("memory", 0)
    before = set(os.listdir("/proc/self/fd"))
    for command in (DMA_MAP, READ, DEVICE_INFO, 99):
        talk.ask(command, struct.pack("<IIQQQ", 32, 3, 0, 0, 4096), [fd, fd])
    talk.ask(SET_IRQS, struct.pack("<IIIII", 20, 0x24, 2, 0, 1), [fd, fd])
    assert set(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_a_client_that_reads_no_answers_ends_the_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "CARD_CLIENT", 0.05)
    talk = Talk()
    payload = struct.pack("<QII", 0, 0, MEMORY)
    requests = 100 * (struct.pack("<HHIII", 7, READ, 16 + len(payload), 0, 0) + payload)
    talk.ask(VERSION, struct.pack("<HH", 0, 1))
    with talk.connection, talk.near, pytest.raises(Garbled, match="has not read its answers for"):
        for _ in range(1000):
            talk.near.send(requests)
            assert talk.connection.serve()


def test_a_request_without_reply_gets_none(talk: Talk) -> None:
    payload = struct.pack("<QII", 0, 0, 4) + b"wxyz"
    talk.near.send(struct.pack("<HHIII", 7, WRITE, 16 + len(payload), 0x10, 0) + payload)
    assert talk.connection.serve()
    assert talk.ask(READ, struct.pack("<QII", 0, 0, 4))[1][16:] == b"wxyz"
