"""The pcap format: a file header of 24 bytes, then packets, each with a header of 16 bytes.

The reader accepts both byte orders, times in microseconds or nanoseconds, and all versions that
libpcap reads: 2.0 to 2.4, and 543.0 of an old tcpdump. Sources: the manual page pcap-savefile(5),
draft-ietf-opsawg-pcap, and sf-pcap.c of libpcap for the versions before 2.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ringline.workers.captures.byte_source import ByteSource
from ringline.workers.captures.capture_table import (
    FRAME_BYTES_MAX,
    LINK_TYPE_ETHERNET,
    CaptureError,
    Tally,
)
from ringline.workers.captures.packet import Packet

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


class PcapReader:
    """The packets of a pcap file, whose first bytes in the window of `source` are one of MAGICS.

    link_type: of all packets.

    Raises CaptureError for another version or an incomplete header; `packets` raises it for
    impossible lengths, and CutShort when the file ends inside a packet.
    """

    def __init__(self, source: ByteSource, tally: Tally) -> None:
        data = source.need(0, FILE_HEADER_BYTES)
        if len(data) < FILE_HEADER_BYTES:
            raise CaptureError(
                f"{tally.path}: ends after {len(data)} of the {FILE_HEADER_BYTES} bytes that every "
                f"pcap file begins with; copy it again"
            )
        self._source = source
        self._tally = tally
        self._order, self._unit = MAGICS[data[:4]]
        major, minor, _, _, _, link = struct.unpack_from(self._order + "HHIIII", data, 4)
        if (major, minor) not in _VERSIONS:
            raise CaptureError(
                f"{tally.path}: is pcap version {major}.{minor}, and only 2.0 to 2.4 are "
                f"supported; convert it with editcap -F pcap {tally.path} NEW"
            )
        self._swapped = _VERSIONS[major, minor]
        self._fcs = 2 * (link >> 28) if link & _FCS_PRESENT else 0
        self.link_type = link & _LINK_TYPE_MASK
        self.at = FILE_HEADER_BYTES  # where the next packet begins in the window
        self._steps = self.packets()
        self.ended = False  # `step` has found the end of the file

    @property
    def unit(self) -> int:
        """Nanoseconds of one unit of the fraction of a second."""
        return self._unit

    @property
    def order(self) -> str:
        """The byte order, "<" or ">"."""
        return self._order

    @property
    def is_usual(self) -> bool:
        """Whether it has Ethernet frames without frame check sequence, and version 2.4."""
        return self.link_type == LINK_TYPE_ETHERNET and not self._fcs and self._swapped is False

    def move(self, at: int) -> None:
        """Go on at byte `at` of the window of the source, where a packet must begin."""
        self.at = at

    def step(self, stop: int | None = None) -> Packet | None:
        """The next packet; None when there is none. `stop` is for a reader of blocks."""
        packet = next(self._steps, None)
        self.ended = packet is None
        return packet

    def packets(self) -> Iterator[Packet]:
        """All packets in the order of the file. Another reader may take some of them (`move`)."""
        source, tally = self._source, self._tally
        order, unit, swapped, fcs = self._order, self._unit, self._swapped, self._fcs
        link_type = self.link_type
        header = struct.Struct(order + "IIII").unpack_from
        data = source.data
        view = memoryview(data)
        size = len(data)
        at = self.at
        while True:
            body = at + PACKET_HEADER_BYTES
            if body > size:
                data = source.need(at, PACKET_HEADER_BYTES)
                view = memoryview(data)
                at, body, size = 0, PACKET_HEADER_BYTES, len(data)
                if size == 0:
                    return
                if size < body:
                    what = f"ends after {size} bytes of its header"
                    raise tally.ends_inside_packet(source.base, what)
            seconds, fraction, captured, original = header(data, at)
            if swapped or (swapped is None and captured > original):
                captured, original = original, captured
            end = body + captured
            if captured > FRAME_BYTES_MAX:  # tells more than a missing end
                tally.check_length(source.base + at, captured)
            if captured == 0 and data[at : at + 4] in MAGICS:
                self._check_joined(data, at)
            if end > size:
                data = source.need(at, PACKET_HEADER_BYTES + captured)
                view = memoryview(data)
                at, body, size = 0, PACKET_HEADER_BYTES, len(data)
                end = body + captured
                if end > size:
                    what = f"ends after {size - body} of its {captured} bytes"
                    raise tally.ends_inside_packet(source.base, what)
            time = seconds * 1_000_000_000 + fraction * unit
            self.at = end
            yield Packet(source.base + at, time, original, link_type, fcs, order, view[body:end])
            at = self.at
            if source.data is not data:
                data = source.data
                view = memoryview(data)
                size = len(data)

    def _check_joined(self, data: bytes, at: int) -> None:
        """Raise CaptureError when the packet at `at` is the header of another file."""
        if struct.unpack_from(MAGICS[data[at : at + 4]][0] + "HH", data, at + 4) in _VERSIONS:
            raise self._tally.damaged(
                self._source.base + at,
                "is the header of another pcap file: files must be joined with mergecap",
            )


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
