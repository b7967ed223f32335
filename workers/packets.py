"""The arguments of a packet function, and the functions that it may call.

`frame` is a uint8 array of shape (length,) over the bytes of the packet: writing to it
changes the packet. `meta` holds the numbers that belong to the packet: see `Meta`.

This module implements them in plain Python, so that a packet function can be called and
debugged in a test. tiers/jit.py and tiers/jit_packets.py implement the same names for
compiled code.
"""

from __future__ import annotations

from ringline.shm._shm import lib
from ringline.shm.frames import units_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DROP: int = lib.RL_VERDICT_DROP
VLAN: int = lib.RL_FLAG_VLAN
HASH: int = lib.RL_FLAG_HASH
L3_OK: int = lib.RL_FLAG_L3_OK
L4_OK: int = lib.RL_FLAG_L4_OK
CHECKSUM_BAD: int = lib.RL_FLAG_CHECKSUM_BAD
FIX_CHECKSUMS: int = lib.RL_FLAG_FIX_CHECKSUMS


WRONG_LENGTH = (
    "the port does not exist, or the length is not 17 to 1518 bytes (more only with jumbo frames)"
)


def _read_only(name: str) -> Any:
    """A property of Meta that cannot be set, as in compiled code."""

    def get(meta: Meta) -> int:
        number: int = meta._fixed[name]
        return number

    def refuse(meta: Meta, value: int) -> None:
        raise AttributeError(f"meta.{name} cannot be set")

    return property(get, refuse)


class Meta:
    """The numbers that belong to a packet: the argument `meta` of a packet function.

    | meta.        |                                                                   |
    |--------------|-------------------------------------------------------------------|
    | port         | number of the input port; as a verdict it sends the packet back   |
    | ports        | number of ports                                                   |
    | queue        | number of this worker                                             |
    | frame_max    | bytes of the longest frame that a port sends, with a VLAN tag:    |
    |              | 1518, more if a port has jumbo frames                             |
    | length       | bytes of the frame; `resize` changes it                           |
    | wire_length  | bytes that the packet had on the wire: `length`, or more in an    |
    |              | analysis of a capture that has only the begin of each packet      |
    | rss_hash     | 32 bits, computed by the card; valid if flags & HASH              |
    | vlan_tci     | 16 bits, the stripped VLAN tag; valid if flags & VLAN. Writable:  |
    |              | with the flag VLAN set, the card inserts this tag                 |
    | flags        | VLAN, HASH, L3_OK, L4_OK, CHECKSUM_BAD; writable. With            |
    |              | FIX_CHECKSUMS set, the checksums are written when the frame is    |
    |              | sent, as `fix_checksums` does, by the card if it can              |
    | time         | when the packet came, in nanoseconds since 1970                   |

    `time` is when the driver took the packet from the card, or the card's own time stamp; in
    `ringline try` and in a replay with the pace of the capture it is the time in the capture. By
    the driver's clock it does not run back while a worker lives: when the clock of the machine is
    set forward, it follows within a second, and when it is set back, it does not, until the
    next start of ringline. ringline keeps times only for a function that mentions `.time`, or
    whose helpers do.

    An object of this class is for packet functions that run as plain Python. It copies the
    argument `frame` to a buffer of its own; `meta.frame` is the array over that buffer, and
    `meta.created` the created packets, as (port, frame).
    """

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
        time: int = 0,
        frame_max: int = lib.RL_FRAME_MAX,
        wire_length: int | None = None,
    ) -> None:
        self._fixed = {
            "port": port,
            "ports": ports,
            "queue": queue,
            "rss_hash": rss_hash,
            "time": time,
        }
        self.vlan_tci = vlan_tci
        self.flags = flags
        self.created: list[tuple[int, Any]] = []  # (port, frame) of each `create`
        self._offset: int = lib.RL_BUFFER_HEADROOM
        self._length = len(frame)
        self._fixed["frame_max"] = max(frame_max, self._length)
        self._buffer = bytearray(units_for(self.frame_max) * lib.RL_BUFFER_STRIDE)
        self._wire_length = wire_length
        self._buffer[self._offset : self._offset + self._length] = frame

    # In compiled code, too, these cannot be set.
    port = _read_only("port")
    ports = _read_only("ports")
    queue = _read_only("queue")
    frame_max = _read_only("frame_max")
    rss_hash = _read_only("rss_hash")
    time = _read_only("time")

    @property
    def length(self) -> int:
        """Bytes of the frame."""
        return self._length

    @length.setter
    def length(self, length: int) -> None:
        raise AttributeError("meta.length cannot be set; use resize(meta, front, back)")

    @property
    def frame(self) -> Any:
        """The frame: a writable uint8 array of shape (length,), whose elements calculate as in
        compiled code (see plain.py)."""
        from ringline.workers.plain import frame_over

        return frame_over(self._buffer, self._length, self._offset)

    @property
    def wire_length(self) -> int:
        """Bytes that the packet had on the wire."""
        return self._length if self._wire_length is None else self._wire_length

    def resize(self, front: int, back: int) -> Any:
        """As the function `resize`."""
        offset, length = self._offset - front, self._length + front + back
        if offset < 0 or length < 0 or offset + length > len(self._buffer):
            raise ValueError("the frame does not fit into its buffer")
        self._offset, self._length = offset, length
        return self.frame


def field(frame: Any, offset: int, size: int) -> int:
    """Read `size` bytes at byte `offset` of `frame` as a number in network byte order.

        if field(frame, 12, 2) == 0x0800:  # the EtherType says IPv4

    `size` is 1, 2, 4, 6 or 8; in a compiled function it must be a constant. The result is
    unsigned, except with 8 bytes: then it is a signed 64-bit number.

    Raises IndexError when the field is not within the frame, with or without `debug`.
    """
    if offset < 0 or offset + size > len(frame):
        raise IndexError("the field is not within the frame")
    return int.from_bytes(bytes(frame[offset : offset + size]), "big", signed=size == 8)


def set_field(frame: Any, offset: int, size: int, value: int) -> None:
    """Write the low `size` bytes of `value` at byte `offset`, in network byte order.

    `size` and the error are those of `field`.
    """
    if offset < 0 or offset + size > len(frame):
        raise IndexError("the field is not within the frame")
    for number in range(size):
        frame[offset + number] = value >> 8 * (size - 1 - number) & 0xFF


def resize(meta: Any, front: int, back: int) -> Any:
    """Add `front` bytes before the frame and `back` bytes after it; negative numbers remove.

        frame = resize(meta, 4, 0)  # room for 4 more bytes at the start

    Returns the new frame; do not use the old one any more. The content of added bytes is
    undefined. There are 192 bytes of room before a received frame.

    Raises ValueError when the frame does not fit into its buffer. The driver sends frames
    of 17 to 1518 bytes, of 1514 if the card inserts a VLAN tag, and longer ones to a port with
    jumbo frames; it drops others and counts them as bad references.
    """
    return meta.resize(front, back)


def create(meta: Any, length: int, port: int) -> Any:
    """Create a packet of `length` bytes, send it to `port`, and return its frame.

        reply = create(meta, 60, meta.port)
        if len(reply):
            reply[:] = 0

    The content of the frame is undefined, so fill all of it. The frame is empty when the
    worker has no blank buffer left, or when 64 packets were created for this batch; `blanks`
    in the configuration is the number of blank buffers. Created packets are sent after the
    packets of the batch.

    Raises ValueError when there is no such port or `length` is not 17 to 1518, or more with jumbo
    frames.
    """
    if not 0 <= port < meta.ports or not lib.RL_FRAME_MIN <= length <= meta.frame_max:
        raise ValueError(WRONG_LENGTH)
    frame = Meta(bytes(length)).frame
    meta.created.append((port, frame))
    return frame
