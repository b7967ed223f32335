"""The kernel's side of packet sockets in memory: the test fills blocks and takes slots as the
kernel would."""

from __future__ import annotations

import socket
import struct

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import PacketConfig
from ringline.pipeline.ports.packet import rings
from ringline.pipeline.ports.packet.port import PacketPort
from ringline.pipeline.ports.port import Link

from .port_harness import PortHarness

KERNEL, USER = 0, 1  # of a block
COPIED, CSUM_NOT_READY, VLAN, TPID = 1 << 1, 1 << 3, 1 << 4, 1 << 6  # of a frame
AVAILABLE, REQUESTED, SENDING, WRONG = 0, 1, 2, 4  # of a slot
BLOCK_HEAD = struct.Struct("=IIIIIIQ")  # version, private, status, frames, first, length, number
FRAME_HEAD = struct.Struct("=6I2H2IH")  # next, s, ns, snapped, length, status, mac, net, hash, tag
FIRST, MAC = 48, 82  # bytes: the first frame in its block, a frame behind its header
SLOT_FRAME = 48
NOW = 1_700_000_000


class FakeKernel:
    """The kernel at one socket."""

    def __init__(self, c, geometry: rings.Geometry, end: socket.socket) -> None:
        self.memory = ffi.new("uint8_t[]", geometry.size)
        rings.describe(c, self.memory, geometry)
        self._buffers = c.buffers = ffi.new("uint32_t[]", geometry.slots)
        self._geometry, self._end = geometry, end
        self._slots = self.memory + geometry.rx_bytes
        self._block, self._frames, self._at = 0, 0, FIRST
        self._head = 0  # the slot from which it sends next

    # -- receiving --------------------------------------------------------------------------

    def arrive(self, frame: bytes, length: int = 0, status: int = 0, tag=(0, 0), when=NOW) -> None:
        """Put a frame into the open block. `when` is in seconds, `tag` VLAN and type."""
        begin = self.memory + self._block * rings.BLOCK_BYTES
        step = -(-(MAC + len(frame)) // 16) * 16
        head = FRAME_HEAD.pack(
            step, int(when), round(when % 1 * 1e9), len(frame), length or len(frame),
            status | USER, MAC, MAC + 14, 0, *tag,
        )  # fmt: skip
        ffi.memmove(begin + self._at, head, len(head))
        ffi.memmove(begin + self._at + MAC, frame, len(frame))
        self._at += step
        self._frames += 1
        self._write(KERNEL)

    def _write(self, status: int) -> None:
        head = BLOCK_HEAD.pack(1, 0, status, self._frames, FIRST, self._at, 0)
        ffi.memmove(self.memory + self._block * rings.BLOCK_BYTES, head, len(head))

    def hand_over(self) -> None:
        """Close the block and open the next one, which must be the kernel's."""
        self._write(USER)
        self._block = (self._block + 1) % self._geometry.blocks
        self._frames, self._at = 0, FIRST
        assert self.status(self._block) == KERNEL
        self._write(KERNEL)

    def status(self, block: int) -> int:
        head = bytes(ffi.buffer(self.memory + block * rings.BLOCK_BYTES, BLOCK_HEAD.size))
        return int(BLOCK_HEAD.unpack(head)[2])

    # -- sending ----------------------------------------------------------------------------

    def _slot(self, index: int):
        return self._slots + index % self._geometry.slots * rings.SLOT_BYTES

    def mark(self, index: int, status: int) -> None:
        ffi.memmove(self._slot(index) + 20, struct.pack("=I", status), 4)

    def send(self, most: int = 1 << 30, status: int = AVAILABLE) -> list[bytes]:
        """Take the frames that wait, in order; each slot then has this status."""
        found: list[bytes] = []
        while len(found) < most:
            head = FRAME_HEAD.unpack(bytes(ffi.buffer(self._slot(self._head), FRAME_HEAD.size)))
            if head[5] != REQUESTED:
                break
            assert head[0] == 0  # frames are not chained
            found.append(bytes(ffi.buffer(self._slot(self._head) + SLOT_FRAME, head[4])))
            self.mark(self._head, status)
            if status == WRONG:
                break  # the kernel does not go past it
            self._head += 1
        return found

    def calls(self) -> int:
        """How often the port has called sendto since the last look."""
        count = 0
        while True:
            try:
                self._end.recv(1)
            except BlockingIOError:
                return count
            count += 1


class FakePacketPort(PacketPort):
    """The real port on rings in memory."""

    def __init__(self, config, index, _path) -> None:
        super().__init__(config, index)
        self.kernel: list[FakeKernel] = []
        self.ends: list[socket.socket] = []
        self.up, self.mtu, self.counts = True, 1504, [(0, 0, 0)] * config.queues

    def open(self, memory, descriptors, addresses) -> None:
        self.c_port.memory = memory
        geometry = rings.Geometry.of(self._config)
        for queue in range(self.queue_pairs):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            theirs.setblocking(False)
            self.ends += [ours, theirs]
            c = self._c.queues[queue]
            c.fd = ours.fileno()
            self.kernel.append(FakeKernel(c, geometry, theirs))

    def link(self) -> Link:
        self.c_port.ready = self.up and self._running
        self._c.frame_max = self.mtu + 14
        return Link(self.up, 0)

    def close(self) -> None:
        self.stop(0.0)
        for end in self.ends:
            end.close()
        super().close()


class FakePacket(PortHarness):
    """A started port and the kernel."""

    port_class = FakePacketPort  # type: ignore[assignment]

    def __init__(self, instance: str, **config) -> None:
        super().__init__(instance, **{"packet": PacketConfig(), **config})

    def kernel(self, queue: int = 0) -> FakeKernel:
        made: FakeKernel = self.port.kernel[queue]
        return made
