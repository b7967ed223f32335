"""A minimal client of vfio-user, written from QEMU's docs/interop/vfio-user.rst: it shares no code
with the server that it tests."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from typing import Any

from .bare_82599 import DESCRIPTORS_BUS, PACKETS_BUS, Bare82599

VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO = 1, 2, 3, 4, 5
IRQ_INFO, SET_IRQS, READ, WRITE, RESET = 7, 8, 9, 10, 13
BAR0, CONFIGURATION = 0, 7
MSIX = 2
ANSWER_SECONDS = 30.0


class Refused(Exception):
    """The server answered with this error number."""


class Client:
    """One end of a connection. A context manager."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(ANSWER_SECONDS)
        self._number = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, command: int, payload: bytes = b"", fds: list[int] | None = None) -> bytes:
        """Send a command; the payload of its answer. Raises Refused."""
        self._number += 1
        head = struct.pack("<HHIII", self._number, command, 16 + len(payload), 0, 0)
        socket.send_fds(self.socket, [head + payload], fds or [])
        number, answered, size, flags, error = struct.unpack("<HHIII", self._receive(16))
        assert (number, answered, flags & 0xF) == (self._number, command, 1)
        data = self._receive(size - 16)
        if flags & 0x20:
            raise Refused(error)
        return data

    def greet(self) -> dict[str, Any]:
        """Negotiate the version; the server's capabilities."""
        text = json.dumps({"capabilities": {"max_msg_fds": 8}}).encode() + b"\0"
        answer = self.ask(VERSION, struct.pack("<HH", 0, 1) + text)
        assert struct.unpack_from("<HH", answer) == (0, 1)
        said: dict[str, Any] = json.loads(answer[4:].rstrip(b"\0"))
        return said

    def read(self, region: int, offset: int, size: int) -> int:
        answer = self.ask(READ, struct.pack("<QII", offset, region, size))
        return int.from_bytes(answer[16:], "little")

    def write(self, region: int, offset: int, value: int, size: int = 4) -> None:
        data = value.to_bytes(size, "little")
        self.ask(WRITE, struct.pack("<QII", offset, region, size) + data)

    def map(self, address: int, size: int, fd: int, offset: int = 0) -> None:
        self.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 3, offset, address, size), [fd])

    def unmap(self, address: int, size: int) -> None:
        self.ask(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, address, size))

    def set_vectors(self, start: int, fds: list[int]) -> None:
        head = struct.pack("<IIIII", 20, 0x4 | 0x20, MSIX, start, len(fds))
        self.ask(SET_IRQS, head, fds)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionResetError("the server has closed the connection")
            data += piece
        return data


class _Remote:
    """Looks like the model to Bare82599, and reaches it through a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read32(self, address: int) -> int:
        return self._client.read(BAR0, address, 4)

    def write32(self, address: int, value: int) -> None:
        self._client.write(BAR0, address, value)

    def pointer(self, address: int) -> Any:
        return _Tail(self, address)


class _Tail:
    def __init__(self, remote: _Remote, address: int) -> None:
        self._remote, self._address = remote, address

    def __setitem__(self, _: int, value: int) -> None:
        self._remote.write32(self._address, value)


class Remote82599(Bare82599):
    """The driver of Bare82599 on a card that a client reaches. The memory of the descriptors is
    given in pieces of a page, as an IOMMU may; the files are `files`."""

    def __init__(self, client: Client) -> None:
        self.sim: Any = _Remote(client)
        self.files = {bus: os.memfd_create("dma", 0) for bus in (DESCRIPTORS_BUS, PACKETS_BUS)}
        os.ftruncate(self.files[DESCRIPTORS_BUS], 1 << 20)
        os.ftruncate(self.files[PACKETS_BUS], 4 << 20)
        self.descriptors = mmap.mmap(self.files[DESCRIPTORS_BUS], 1 << 20)
        self.packets = mmap.mmap(self.files[PACKETS_BUS], 4 << 20)
        for at in range(0, 1 << 16, 4096):
            client.map(DESCRIPTORS_BUS + at, 4096, self.files[DESCRIPTORS_BUS], at)
        client.map(PACKETS_BUS, 4 << 20, self.files[PACKETS_BUS])
        self.next = [0] * 128
        self.tail = [0] * 128
        self.skip = set()

    def __exit__(self, *_: object) -> None:
        self.descriptors.close()
        self.packets.close()
        for fd in self.files.values():
            os.close(fd)
