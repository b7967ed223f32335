"""The kernel's side of a TAP: the other ends of socket pairs, on which each datagram is a frame."""

from __future__ import annotations

import socket

from ringline.pipeline.configuration.config import TapConfig
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.tap.port import TapPort

from .port_harness import PortHarness


class FakeTapPort(TapPort):
    """The real port on socket pairs."""

    def __init__(self, config, index, _path) -> None:
        super().__init__(config, index)
        self.ends: list[socket.socket] = []

    def open(self, memory, descriptors, addresses) -> None:
        self.c_port.memory = memory
        ours = []
        for _ in range(self.queue_pairs):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            near.setblocking(False)
            far.setblocking(False)
            ours.append(near.detach())
            self.ends.append(far)
        self.use_sockets(ours)

    def link(self) -> Link:
        self.c_port.ready = self._started
        return Link(True, 0)

    def close(self) -> None:
        for end in self.ends:
            end.close()
        super().close()


class FakeTap(PortHarness):
    """A port; the methods below are what the kernel does."""

    port_class = FakeTapPort  # type: ignore[assignment]

    def __init__(self, instance: str, **config) -> None:
        super().__init__(instance, **{"tap": TapConfig(), **config})

    def arrive(self, frame: bytes, queue: int = 0) -> None:
        self.port.ends[queue].send(frame)

    def sent(self, queue: int = 0) -> list[bytes]:
        """The frames that the port has sent since the last look."""
        found = []
        while True:
            try:
                found.append(self.port.ends[queue].recv(65536))
            except BlockingIOError:
                return found
