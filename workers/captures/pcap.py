"""The pcap format: a file header of 24 bytes, then packets, each with a header of 16 bytes.

The reader accepts both byte orders, times in microseconds or nanoseconds, and all versions that
libpcap reads: 2.0 to 2.4, and 543.0 of an old tcpdump. Sources: the manual page pcap-savefile(5),
draft-ietf-opsawg-pcap, and sf-pcap.c of libpcap for the versions before 2.4.
"""

from __future__ import annotations

import struct

from ringline.workers.captures.capture_table import (
    FRAME_BYTES_MAX,
    LINK_TYPE_ETHERNET,
    Capture,
    CaptureError,
    link_type_name,
)

FILE_HEADER_BYTES = 24
PACKET_HEADER_BYTES = 16

# The versions, and whether the two lengths of a packet are swapped: the length on the wire comes
# first. In 2.3 they may be: the larger one is then the length on the wire.
_VERSIONS: dict[tuple[int, int], bool | None] = {
    (2, 0): True,
    (2, 1): True,
    (2, 2): True,
    (2, 3): None,
    (2, 4): False,
    (543, 0): True,
}

_MICROSECONDS = 0xA1B2C3D4
_NANOSECONDS = 0xA1B23C4D

# First four bytes of a file -> (byte order for struct, nanoseconds per unit of the fraction).
MAGICS = {
    struct.pack(order + "I", magic): (order, unit)
    for order in "<>"
    for magic, unit in ((_MICROSECONDS, 1000), (_NANOSECONDS, 1))
}

# The link type field: 16 bits of link type, then flags; only this flag is used here.
_LINK_TYPE_MASK = 0xFFFF
# In the field "accuracy of time stamps", which every reader ignores: ringline wrote this file.
# The device model (pipeline/ports/sim82599/traffic/record.c) writes it too.
_MARK = b"ring"
_FCS_PRESENT = (
    1 << 26
)  # bits 31:28 hold the length of the frame check sequence, in units of 16 bits


def read_pcap(capture: Capture) -> None:
    """Fill `capture` from its data, which begins with one of MAGICS.

    Raises CaptureError for another version or link type, an incomplete file or packet, and
    impossible lengths.
    """
    data = capture.data
    if len(data) < FILE_HEADER_BYTES:
        raise CaptureError(
            f"{capture.path}: ends after {len(data)} of the {FILE_HEADER_BYTES} bytes that every "
            f"pcap file begins with; copy it again"
        )
    order, unit = MAGICS[data[:4]]
    major, minor, _, _, _, link = struct.unpack_from(order + "HHIIII", data, 4)
    if (major, minor) not in _VERSIONS:
        raise CaptureError(
            f"{capture.path}: is pcap version {major}.{minor}, and only 2.0 to 2.4 are supported; "
            f"convert it with editcap -F pcap {capture.path} NEW"
        )
    if link & _LINK_TYPE_MASK != LINK_TYPE_ETHERNET:
        raise CaptureError(
            f"{capture.path}: has link type {link_type_name(link & _LINK_TYPE_MASK)}, and only "
            f"Ethernet (1) can be replayed to a network card; capture on an Ethernet interface"
        )
    swapped = _VERSIONS[major, minor]
    fcs = 2 * (link >> 28) if link & _FCS_PRESENT else 0
    header = struct.Struct(order + "IIII").unpack_from
    size = len(data)
    at = FILE_HEADER_BYTES
    while at < size:
        body = at + PACKET_HEADER_BYTES
        if body > size:
            raise capture.damaged(at, f"ends after {size - at} bytes of its header")
        seconds, fraction, captured, original = header(data, at)
        if swapped or (swapped is None and captured > original):
            captured, original = original, captured
        # An impossible length is reported by `add`: that tells more than a missing end.
        if captured <= FRAME_BYTES_MAX and body + captured > size:
            raise capture.damaged(at, f"ends after {size - body} of its {captured} bytes")
        time = seconds * 1_000_000_000 + fraction * unit
        capture.add(at, body, captured, original, time, fcs)
        at = body + captured


def file_header() -> bytes:
    """The header of a pcap file with Ethernet frames and times in nanoseconds, and our mark."""
    mark = int.from_bytes(_MARK, "little")
    return struct.pack("<IHHIIII", _NANOSECONDS, 2, 4, 0, mark, FRAME_BYTES_MAX, LINK_TYPE_ETHERNET)


def is_ours(begin: bytes) -> bool:
    """Whether a file with this header was written by ringline."""
    return begin[:4] == file_header()[:4] and begin[12:16] == _MARK


def packet_header(captured: int, nanoseconds: int) -> bytes:
    """The header of a complete frame of `captured` bytes, for a file with `file_header`."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return struct.pack("<IIII", seconds & 0xFFFFFFFF, fraction, captured, captured)
