"""Internet checksums: of a range (RFC 1071), updated (RFC 1624), and all those of a frame.

In a compiled function these names are compiled with it (tiers/jit_checksums.py). Elsewhere they
call the C of checksums.h, which plugins in C call with the prefix `rl_`.

Guarantees (tests in tests/workers/headers/test_checksums.py):
 - compiled code, plain Python and C write the same (test_compiled_and_plain_write_the_same)
 - tcpdump accepts each checksum that is said to be right (test_tcpdump_accepts_every_checksum)
 - an update gives what a new computation gives (test_an_update_equals_a_new_computation)
"""

from __future__ import annotations

from ringline.workers._workers import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MASK = (1 << 64) - 1


def checksum(frame: Any, start: int = 0, end: int | None = None, initial: int = 0) -> int:
    """The Internet checksum (RFC 1071) of the bytes `start` to `end` of `frame`: 0 to 0xFFFF.

        checksum(frame, h.l3, h.l3 + 20)  # 0 if the checksum of this IPv4 header is right

    `end` is not included; None is the end of the frame. An odd last byte is padded with zero.
    `initial`, for instance the sum of a pseudo header, is added first: 0 to 2^64 - 1.

    Raises IndexError when the range is not within the frame.
    """
    data = ffi.from_buffer("uint8_t[]", frame)
    stop = len(data) if end is None else int(end)
    if not 0 <= start <= stop <= len(data):
        raise IndexError("the range is not within the frame")
    found: int = lib.rl_call_checksum(data + int(start), stop - int(start), int(initial) & _MASK)
    return found


def update_checksum(frame: Any, offset: int, old: int, new: int) -> None:
    """Update the checksum at byte `offset` after a field was changed from `old` to `new` (RFC
    1624, equation 3).

        set_field(frame, h.l3 + 12, 4, address)
        update_checksum(frame, h.l3 + 10, h.src, address)  # of the IPv4 header
        if h.protocol == UDP or h.protocol == TCP:  # their pseudo header has the addresses
            update_checksum(frame, h.checksum_at, h.src, address)

    The field has 2, 4, 6 or 8 bytes, and lies an even number of bytes after the first byte that
    the checksum covers. A checksum that was wrong before stays wrong.

    The UDP checksum 0 means "no checksum" (RFC 768). So if `offset` is where `headers` finds the
    UDP checksum, 0 stays 0, and a result of 0 is written as 0xFFFF, which is equal to it.

    Raises IndexError when the checksum is not within the frame.
    """
    data = _writable(frame)
    if not 0 <= offset <= len(data) - 2:
        raise IndexError("the checksum is not within the frame")
    lib.rl_call_update_checksum(data, len(data), int(offset), int(old) & _MASK, int(new) & _MASK)


def fix_checksums(frame: Any) -> int:
    """Compute the checksums of `frame` and write them: of the IPv4 header, and of TCP, UDP, ICMP
    or ICMPv6.

    Returns which of them are right now: `L3_OK` for the IPv4 header, `L4_OK` for the other,
    `L3_OK | L4_OK`, or 0. A frame without such a checksum has none of the flags.

    These transport checksums stay as they are, without `L4_OK`:
     - of fragments: only the whole packet has a checksum
     - of packets that are longer than the frame, or whose header is not whole
     - UDP over IPv4 without a checksum (0). Over IPv6, where UDP must have one (RFC 8200 8.1),
       it is computed
     - of packets whose final destination is not known: an IPv4 source route that is not at its
       end, an IPv6 routing header with segments left that is not of type 0, 2 or 4

    VLAN tags and IPv6 extension headers are passed over, as in `headers`.
    """
    data = _writable(frame)
    flags: int = lib.rl_call_fix_checksums(data, len(data))
    return flags


def _writable(frame: Any) -> Any:
    """The bytes of `frame`, as cdata. Raises TypeError when they cannot be written."""
    try:
        return ffi.from_buffer("uint8_t[]", frame, require_writable=True)
    except BufferError:
        raise TypeError(
            f"the frame must be writable, such as packet.data or a bytearray, not "
            f"{type(frame).__name__}"
        ) from None
