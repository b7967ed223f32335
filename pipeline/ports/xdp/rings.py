"""The four rings of an AF_XDP socket, mapped into this process (linux/if_xdp.h)."""

from __future__ import annotations

import errno
import mmap
import socket
import struct
from typing import Any

from ringline.pipeline._pipeline import ffi

AF_XDP, SOL_XDP = 44, 283  # of linux/socket.h
MMAP_OFFSETS, RX_RING, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING, STATISTICS = range(1, 8)

DESCRIPTOR_BYTES: int = ffi.sizeof("struct rl_xdp_descriptor")
ADDRESS_BYTES = 8

# (field of struct rl_xdp_queue, bytes of an entry, offset to map, whether we are the producer), in
# the order of struct xdp_mmap_offsets.
_RINGS = (
    ("rx", DESCRIPTOR_BYTES, 0, False),
    ("tx", DESCRIPTOR_BYTES, 0x8000_0000, True),
    ("fill", ADDRESS_BYTES, 0x1_0000_0000, True),
    ("completion", ADDRESS_BYTES, 0x1_8000_0000, False),
)


def socket_of(fd: int) -> socket.socket:
    """The socket object of a descriptor. The family must be said: this kind has no getsockname."""
    return socket.socket(AF_XDP, socket.SOCK_RAW, 0, fileno=fd)


def maps_when_bound(fd: int) -> bool:
    """Whether this kernel maps the rings of a socket that is bound, as `fd` is. Linux does so since
    6.4. Raises OSError when it refuses that for another reason."""
    try:
        mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED).close()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


class SocketRings:
    """The rings of the socket `fd`, described in `queue` (cdata `struct rl_xdp_queue *`).

    The rings have `rx_entries` (RX, fill) and `tx_entries` (TX, completion) entries. Indices go on
    where another process, or the test of a socket, left them.
    """

    def __init__(self, fd: int, queue: Any, rx_entries: int, tx_entries: int) -> None:
        self._maps: list[mmap.mmap] = []
        queue.fd = fd
        with socket_of(fd) as handle:
            try:
                data = handle.getsockopt(SOL_XDP, MMAP_OFFSETS, 128)
            finally:
                handle.detach()
        for at, (name, size, offset, producing) in enumerate(_RINGS):
            producer, consumer, entries, flags = struct.unpack_from("=4Q", data, at * 32)
            count = rx_entries if name in ("rx", "fill") else tx_entries
            memory = mmap.mmap(
                fd, entries + count * size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset
            )
            self._maps.append(memory)
            with ffi.from_buffer(memory) as start:
                begin = int(ffi.cast("uintptr_t", start))
            ring = getattr(queue, name)
            ring.producer = ffi.cast("uint32_t *", begin + producer)
            ring.consumer = ffi.cast("uint32_t *", begin + consumer)
            ring.flags = ffi.cast("uint32_t *", begin + flags)
            ring.entries = ffi.cast("void *", begin + entries)
            ring.mask = count - 1
            ring.own = (ring.producer if producing else ring.consumer)[0]

    def close(self) -> None:
        """Unmap the rings; their addresses are invalid from now on."""
        for memory in self._maps:
            memory.close()
        self._maps.clear()
