"""The pcapng format: a sequence of blocks.

The reader handles section headers, interface descriptions, enhanced and simple packet
blocks and the obsolete packet block, in both byte orders, with any number of sections and
interfaces. It skips other blocks, and options other than if_tsresol, if_tsoffset and
if_fcslen. Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ringline.workers.captures.capture_table import (
    LINK_TYPE_ETHERNET,
    Capture,
    CaptureError,
    link_type_name,
)

MAGIC = b"\x0a\x0d\x0d\x0a"  # type of a section header block, the same in both byte orders

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_PACKET = 2  # obsolete; found in files from before 2009
_SIMPLE = 3
_ENHANCED = 6

_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_BLOCK_OVERHEAD = 12  # bytes: type, length, and the length again at the end

_OPTION_END = 0
_OPTION_TSRESOL = 9
_OPTION_FCSLEN = 13
_OPTION_TSOFFSET = 14


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_length: int  # 0: no limit
    units: int  # time stamps are in units of 1 / units seconds
    offset: int  # seconds to add to every time stamp
    fcs: int  # bytes of the frame check sequence at the end of each frame


class _Reader:
    """Reads the blocks of a file; holds the byte order and the interfaces of the section."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.order = "<"
        self.interfaces: list[_Interface] = []

    def unpack(self, layout: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + layout, self.capture.data, at)

    def broken(self, at: int, what: str) -> CaptureError:
        return CaptureError(
            f"{self.capture.path}: the block at byte {at}, after {self.capture.packets} good "
            f"packets, {what}. {self.capture.way_out()}"
        )

    def read(self) -> None:
        data = self.capture.data
        at = 0
        while at < len(data):
            if data[at : at + 4] == MAGIC:
                self.byte_order(at)
            length = self.block_length(at)
            (kind,) = self.unpack("I", at)
            body, end = at + 8, at + length - 4
            if kind == _SECTION:
                self.section(at, body, end)
            elif kind == _INTERFACE:
                self.interface(at, body, end)
            elif kind in (_ENHANCED, _PACKET):
                self.packet(kind, at, body, end)
            elif kind == _SIMPLE:
                self.simple_packet(at, body, end)
            at += length

    def byte_order(self, at: int) -> None:
        """Set the byte order from the section header at `at`."""
        magic = self.capture.data[at + 8 : at + 12]
        for order in "<>":
            if magic == struct.pack(order + "I", _BYTE_ORDER_MAGIC):
                self.order = order
                return
        raise self.broken(at, "is a section header without a byte-order mark")

    def block_length(self, at: int) -> int:
        """The length of the block, checked against its copy at the end and the size of the file."""
        size = len(self.capture.data)
        if at + 8 > size:
            raise self.broken(at, f"ends after {size - at} bytes")
        (length,) = self.unpack("I", at + 4)
        if length < _BLOCK_OVERHEAD or length % 4:
            raise self.broken(at, f"has a length of {length}, which no block can have")
        if at + length > size:
            raise self.broken(at, f"ends after {size - at} of its {length} bytes")
        (again,) = self.unpack("I", at + length - 4)
        if again != length:
            raise self.broken(at, f"has two lengths, {length} at its start and {again} at its end")
        return length

    def section(self, at: int, body: int, end: int) -> None:
        if end - body < 16:
            raise self.broken(at, "is too short for a section header")
        (major,) = self.unpack("H", body + 4)
        if major != 1:
            raise CaptureError(
                f"{self.capture.path}: is pcapng version {major}, and only 1 is supported; "
                f"convert it with editcap -F pcap {self.capture.path} NEW"
            )
        self.interfaces = []

    def interface(self, at: int, body: int, end: int) -> None:
        if end - body < 8:
            raise self.broken(at, "is too short for an interface description")
        link_type, _, snap_length = self.unpack("HHI", body)
        units, offset, fcs = 1_000_000, 0, 0
        option = body + 8
        while option + 4 <= end:
            code, length = self.unpack("HH", option)
            value = option + 4
            if code == _OPTION_END:
                break
            if value + length > end:
                raise self.broken(at, f"has an option {code} that reaches beyond its end")
            if code == _OPTION_TSRESOL and length == 1:
                exponent = self.capture.data[value]
                units = 1 << (exponent & 0x7F) if exponent & 0x80 else 10**exponent
            elif code == _OPTION_TSOFFSET and length == 8:
                (offset,) = self.unpack("q", value)
            elif code == _OPTION_FCSLEN and length == 1:
                # The draft says bits, but most writers, and Wireshark, use bytes.
                count = self.capture.data[value]
                fcs = count // 8 if count >= 8 else count
            option = value + (length + 3 & ~3)
        self.interfaces.append(_Interface(link_type, snap_length, units, offset, fcs))

    def interface_of(self, number: int, at: int) -> _Interface:
        """The interface `number` of a packet. Raises CaptureError when the section has none."""
        if number >= len(self.interfaces):
            raise self.capture.damaged(
                at, f"names interface {number}, and the section has {len(self.interfaces)}"
            )
        return self.interfaces[number]

    def packet(self, kind: int, at: int, body: int, end: int) -> None:
        """An enhanced packet block, or the obsolete one, which differs in the first word."""
        if end - body < 20:
            raise self.broken(at, "is too short for a packet")
        (number,) = self.unpack("I" if kind == _ENHANCED else "H", body)
        high, low, captured, original = self.unpack("IIII", body + 4)
        interface = self.interface_of(number, at)
        time = (high << 32 | low) * 1_000_000_000 // interface.units
        time += interface.offset * 1_000_000_000
        self.add(at, body + 20, end, captured, original, time, interface)

    def simple_packet(self, at: int, body: int, end: int) -> None:
        """A simple packet block: it has no time and no captured length, so the snapshot length
        gives the captured length."""
        if end - body < 4:
            raise self.broken(at, "is too short for a packet")
        (original,) = self.unpack("I", body)
        interface = self.interface_of(0, at)
        captured = min(original, interface.snap_length or original)
        self.add(at, body + 4, end, captured, original, 0, interface)

    def add(
        self,
        at: int,
        start: int,
        end: int,
        captured: int,
        original: int,
        time: int,
        interface: _Interface,
    ) -> None:
        """Add a packet whose bytes begin at `start`, in a block with room up to `end`. A packet
        of another link layer is counted and left out: a file may have several."""
        if captured > end - start:
            raise self.capture.damaged(
                at, f"claims {captured} bytes in a block with room for {end - start}"
            )
        if interface.link_type == LINK_TYPE_ETHERNET:
            self.capture.add(at, start, captured, original, time, interface.fcs)
        else:
            self.capture.leave_out(at, captured, interface.link_type)


def read_pcapng(capture: Capture) -> None:
    """Fill `capture` from its data, which begins with MAGIC.

    Raises CaptureError for incomplete or inconsistent blocks, and when there are packets but no
    Ethernet frame among them.
    """
    _Reader(capture).read()
    if capture.left_out and not len(capture):
        kinds = ", ".join(link_type_name(kind) for kind in sorted(capture.left_out))
        raise CaptureError(
            f"{capture.path}: has link type {kinds}, and only Ethernet (1) can be replayed to a "
            f"network card; capture on an Ethernet interface"
        )
