"""The kernel's side of AF_XDP sockets in memory: the test takes and gives what the kernel would."""

from __future__ import annotations

import socket
import struct

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import XdpConfig
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.xdp.port import XdpPort

from .port_harness import PortHarness

STRIDE = 2240
LEAD = 64  # bytes of a chunk before its buffer
FIRST = 4096 - LEAD  # the address of the chunk of buffer 0
HEADROOM = 256  # bytes from the start of a chunk to a received frame
NEED_WAKEUP = 1


def chunk(buffer: int) -> int:
    """The address of the chunk of a buffer."""
    return FIRST + buffer * STRIDE


class FakeRing:
    """One ring; `c` is the struct of the port's side."""

    def __init__(self, c, entries: int, size: int, producing: bool) -> None:
        self.memory = ffi.new("uint8_t[]", entries * size)
        self.words = ffi.new("uint32_t[3]")
        self.size, self.mask = size, entries - 1
        self.own = 0  # the index that the kernel moves
        c.producer, c.consumer = self.words, self.words + 1
        c.flags = self.words + 2
        c.entries = self.memory
        c.mask = entries - 1
        self._moved = 1 if producing else 0

    def _slot(self, index: int) -> int:
        return (index & self.mask) * self.size

    def take(self, most: int = 1 << 30) -> list[bytes]:
        """What the port has put on the ring."""
        found = []
        while self.own != self.words[0] and len(found) < most:
            at = self._slot(self.own)
            found.append(bytes(ffi.buffer(self.memory + at, self.size)))
            self.own += 1
        self.words[self._moved] = self.own
        return found

    def give(self, entry: bytes) -> None:
        """Put an entry onto the ring."""
        ffi.memmove(self.memory + self._slot(self.own), entry, self.size)
        self.own += 1
        self.words[self._moved] = self.own

    def ask_for_calls(self, on: bool = True) -> None:
        self.words[2] = NEED_WAKEUP if on else 0


class FakeXdpPort(XdpPort):
    """The real port on rings in memory. Its sockets count the system calls: the other end of each
    gets an empty datagram for every call that sends."""

    def __init__(self, config, index, _path) -> None:
        super().__init__(config, index)
        self.kernel: list[dict[str, FakeRing]] = []
        self.ends: list[socket.socket] = []
        self.up = True

    def open(self, memory, descriptors, addresses) -> None:
        self.c_port.memory = memory
        self._held = ffi.new("uint32_t[]", memory.buffers)
        self._c.held = self._held
        for queue in range(self.queue_pairs):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            theirs.setblocking(False)
            self._sockets.append(ours)
            self.ends.append(theirs)
            c = self._c.queues[queue]
            c.fd = ours.fileno()
            rx, tx = self._config.rx_descriptors, self._config.tx_descriptors
            self.kernel.append(
                {
                    "rx": FakeRing(c.rx, rx, 16, producing=False),
                    "tx": FakeRing(c.tx, tx, 16, producing=True),
                    "fill": FakeRing(c.fill, rx, 8, producing=True),
                    "completion": FakeRing(c.completion, tx, 8, producing=False),
                }
            )

    def link(self) -> Link:
        self.c_port.ready = self.up and self._running
        return Link(self.up, 0)

    def close(self) -> None:
        self.stop(0.0)
        for end in self.ends:
            end.close()
        super().close()


class FakeXdp(PortHarness):
    """A started port; the methods below are what the kernel does."""

    port_class = FakeXdpPort  # type: ignore[assignment]

    def __init__(self, instance: str, **config) -> None:
        config = {"xdp": XdpConfig(), **config}
        super().__init__(instance, **config)

    def posted_buffers(self, queue: int = 0) -> list[int]:
        """The buffers that the port has put on the fill ring since the last call."""
        entries = self.port.kernel[queue]["fill"].take()
        addresses = [struct.unpack("=Q", entry)[0] for entry in entries]
        assert all((address - FIRST) % STRIDE == 0 for address in addresses)
        return [(address - FIRST) // STRIDE for address in addresses]

    def arrive(self, buffer: int, frame: bytes, queue: int = 0, length: int | None = None) -> None:
        """A frame arrives in a buffer of the fill ring."""
        at = self.memory.base + buffer * STRIDE + HEADROOM - LEAD
        ffi.memmove(at, frame, len(frame))
        self.give_address(chunk(buffer) | HEADROOM << 48, length or len(frame), queue)

    def give_address(self, address: int, length: int, queue: int = 0) -> None:
        self.port.kernel[queue]["rx"].give(struct.pack("=QII", address, length, 0))

    def sent(self, queue: int = 0, most: int = 1 << 30) -> list[tuple[int, bytes]]:
        """Address and frame of each descriptor on the TX ring."""
        found = []
        for entry in self.port.kernel[queue]["tx"].take(most):
            address, length, options = struct.unpack("=QII", entry)
            assert options == 0
            at = self.memory.base + (address & (1 << 48) - 1) + (address >> 48) - FIRST - LEAD
            found.append((address, bytes(ffi.buffer(at, length))))
        return found

    def complete(self, address: int, queue: int = 0) -> None:
        self.port.kernel[queue]["completion"].give(struct.pack("=Q", address))

    def calls(self, queue: int = 0) -> int:
        """How often the port has called sendto since the last look."""
        count = 0
        while True:
            try:
                self.port.ends[queue].recv(1)
            except BlockingIOError:
                return count
            count += 1

    def receive_calls_left(self, given: int, queue: int = 0) -> int:
        """Of `given` datagrams, how many a call of recvfrom has not taken."""
        left = 0
        self.port._sockets[queue].setblocking(False)
        while True:
            try:
                self.port._sockets[queue].recv(1)
            except BlockingIOError:
                return left
            left += 1
