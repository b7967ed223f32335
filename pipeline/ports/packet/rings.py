"""The sizes of the rings of a packet socket, and their place in memory (linux/if_packet.h)."""

from __future__ import annotations

import mmap
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig

SOL_PACKET = 263
# Options of the level SOL_PACKET.
RX_RING, STATISTICS, VERSION, TX_RING, FANOUT, QDISC_BYPASS = 5, 6, 10, 13, 18, 20
TPACKET_V3 = 2
STATISTICS_V3 = struct.Struct("=3I")  # struct tpacket_stats_v3: packets and drops, drops, freezes

# Blocks are small, for two reasons. The kernel hands over a full one at once and others after a
# time; and it closes a block after that time even if it has one frame, so few large blocks would
# be full soon.
BLOCK_BYTES = 8192
# Room in blocks for each RX descriptor: a frame of 1518 bytes with its header needs 1600.
FRAME_BYTES = 2048
SLOT_BYTES: int = lib.RL_PACKET_SLOT


@dataclass(frozen=True)
class Geometry:
    """The rings of one queue: RX blocks and, behind them, TX slots."""

    blocks: int
    slots: int

    @classmethod
    def of(cls, config: PortConfig) -> Geometry:
        """The rings of a port: they have room for its numbers of descriptors."""
        return cls(config.rx_descriptors * FRAME_BYTES // BLOCK_BYTES, config.tx_descriptors)

    @property
    def rx_bytes(self) -> int:
        return self.blocks * BLOCK_BYTES

    @property
    def size(self) -> int:
        """Bytes of both rings."""
        return self.rx_bytes + self.slots * SLOT_BYTES

    def rx_request(self, timeout: int) -> bytes:
        """struct tpacket_req3; `timeout` in ms is how long a block that is not full may wait."""
        frames = self.rx_bytes // FRAME_BYTES
        return struct.pack("=7I", BLOCK_BYTES, self.blocks, FRAME_BYTES, frames, timeout, 0, 0)

    def tx_request(self) -> bytes:
        """struct tpacket_req3 of the TX ring, where the last three fields must be 0."""
        blocks = self.slots * SLOT_BYTES // BLOCK_BYTES
        return struct.pack("=7I", BLOCK_BYTES, blocks, SLOT_BYTES, self.slots, 0, 0, 0)


class SocketRings:
    """The rings of a socket, described in `queue` (cdata `struct rl_packet_queue *`)."""

    def __init__(self, fd: int, queue: Any, geometry: Geometry) -> None:
        self._memory = mmap.mmap(fd, geometry.size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        with ffi.from_buffer(self._memory) as start:
            describe(queue, ffi.cast("uint8_t *", start), geometry)
        self._buffers = queue.buffers = ffi.new("uint32_t[]", geometry.slots)
        queue.fd = fd

    def close(self) -> None:
        """Unmap the rings; their addresses are invalid from now on."""
        self._memory.close()


def describe(queue: Any, begin: Any, geometry: Geometry) -> None:
    """Fill the fields of `queue` for rings at `begin` (cdata `uint8_t *`)."""
    queue.blocks, queue.slots = begin, begin + geometry.rx_bytes
    queue.block_bytes, queue.block_count = BLOCK_BYTES, geometry.blocks
    queue.slot_mask = geometry.slots - 1
    queue.block = queue.left = queue.own = queue.taken = queue.done = 0


def socket_of(fd: int) -> socket.socket:
    """The socket object of a descriptor."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0, fileno=fd)
