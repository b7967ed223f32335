"""A packet as a compiled function sees it, and what it may do with it beyond its bytes.

`frame` is a uint8 array over exactly the packet's bytes: writing into it changes the
packet. `meta` has the numbers that came with it:

| meta.        |                                                                |
|--------------|----------------------------------------------------------------|
| port         | the input port's number; the verdict to send it back           |
| ports        | how many ports there are                                       |
| queue        | this worker's number                                           |
| length       | of the frame in bytes; `resize` changes it                     |
| rss_hash     | as the card computed it, if flags & HASH                       |
| vlan_tci     | the stripped VLAN tag, if flags & VLAN; may be set, to insert  |
| flags        | VLAN, HASH, L3_OK, L4_OK, CHECKSUM_BAD; may be set             |

Here they are for Python that is not compiled: a packet function can be called and
stepped through in a test. jit.py gives the same names to compiled code.
"""

from __future__ import annotations

from ringline.shm._shm import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DROP: int = lib.RL_VERDICT_DROP
VLAN: int = lib.RL_FLAG_VLAN
HASH: int = lib.RL_FLAG_HASH
L3_OK: int = lib.RL_FLAG_L3_OK
L4_OK: int = lib.RL_FLAG_L4_OK
CHECKSUM_BAD: int = lib.RL_FLAG_CHECKSUM_BAD


class Meta:
    """`meta` of a packet in Python; the frame lies in a buffer of its own."""

    def __init__(
        self,
        frame: bytes | bytearray | memoryview,
        *,
        port: int = 0,
        ports: int = 1,
        queue: int = 0,
        rss_hash: int = 0,
        vlan_tci: int = 0,
        flags: int = 0,
    ) -> None:
        self.port = port
        self.ports = ports
        self.queue = queue
        self.rss_hash = rss_hash
        self.vlan_tci = vlan_tci
        self.flags = flags
        self.created: list[tuple[int, Any]] = []  # (port, frame) of each `create`
        self._offset: int = lib.RL_BUFFER_HEADROOM
        self._length = len(frame)
        self._buffer = bytearray(lib.RL_BUFFER_STRIDE)
        self._buffer[self._offset : self._offset + self._length] = frame

    @property
    def length(self) -> int:
        """Of the frame in bytes."""
        return self._length

    @property
    def frame(self) -> Any:
        """The frame as its function sees it: a NumPy array over its bytes."""
        import numpy as np

        return np.frombuffer(self._buffer, np.uint8, self._length, self._offset)

    def resize(self, front: int, back: int) -> Any:
        """See `resize`."""
        offset, length = self._offset - front, self._length + front + back
        if offset < 0 or length < 0 or offset + length > len(self._buffer):
            raise ValueError("the frame would leave its buffer")
        self._offset, self._length = offset, length
        return self.frame


def field(frame: Any, offset: int, size: int) -> int:
    """The `size` bytes of `frame` at `offset` as a number in network byte order:
    `field(frame, 12, 2) == 0x0800` says IPv4.

    In a compiled function `size` is a constant of 1, 2, 4, 6 or 8; of 8 bytes the highest
    bit is the sign. Raises IndexError when the frame ends before, with or without debug.
    """
    if offset < 0 or offset + size > len(frame):
        raise IndexError("the frame ends before this field")
    return int.from_bytes(bytes(frame[offset : offset + size]), "big", signed=size == 8)


def set_field(frame: Any, offset: int, size: int, value: int) -> None:
    """Write the low `size` bytes of `value` at `offset`, as `field` reads them."""
    if offset < 0 or offset + size > len(frame):
        raise IndexError("the frame ends before this field")
    for number in range(size):
        frame[offset + number] = value >> 8 * (size - 1 - number) & 0xFF


def resize(meta: Any, front: int, back: int) -> Any:
    """Grow the frame by `front` bytes before its first and `back` bytes behind its last one.

    Negative numbers shrink it. Returns the new frame; the old one must not be used any
    more. The new bytes hold anything. Raises ValueError when it would leave its buffer
    (192 bytes of room in front). The driver refuses to send frames below 17 and above
    1518 bytes, and counts them as bad references.
    """
    return meta.resize(front, back)


def create(meta: Any, length: int, port: int) -> Any:
    """A new packet of `length` bytes for `port`, in a blank buffer: its frame.

    The frame is empty (`len(frame) == 0`) when the worker has no blank buffer left. Its
    bytes hold anything. Raises ValueError for a port or length that cannot be sent.
    Created packets leave behind those of the batch.
    """
    if not 0 <= port < meta.ports or not lib.RL_FRAME_MIN <= length <= lib.RL_FRAME_MAX:
        raise ValueError("no such port, or no such length")
    frame = Meta(bytes(length)).frame
    meta.created.append((port, frame))
    return frame
