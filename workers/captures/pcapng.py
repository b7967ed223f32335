"""The pcapng format: a sequence of blocks.

The reader handles section headers, interface descriptions, enhanced and simple packet
blocks and the obsolete packet block, in both byte orders, with any number of sections and
interfaces. It skips other blocks, and options other than if_tsresol, if_tsoffset and
if_fcslen. Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ringline.workers.captures.byte_source import ByteSource
from ringline.workers.captures.capture_table import FRAME_BYTES_MAX, CaptureError, CutShort, Tally
from ringline.workers.captures.packet import Packet

MAGIC = b"\x0a\x0d\x0d\x0a"  # type of a section header block, the same in both byte orders

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_PACKET = 2  # obsolete; found in files from before 2009
_SIMPLE = 3
_ENHANCED = 6

_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_BLOCK_OVERHEAD = 12  # bytes: type, length, and the length again at the end
# A longer block is skipped in pieces. It cannot hold a packet, which has a few options at most.
_BLOCK_BYTES_MAX = 16 << 20

_OPTION_END = 0
_OPTION_TSRESOL = 9
_OPTION_FCSLEN = 13
_OPTION_TSOFFSET = 14


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a section: how its packets are read."""

    link_type: int
    snap_length: int  # 0: no limit
    units: int  # time stamps are in units of 1 / units seconds
    offset: int  # seconds to add to every time stamp
    fcs: int  # bytes of the frame check sequence at the end of each frame


class PcapngReader:
    """The packets of a pcapng file, whose first bytes in the window of `source` are MAGIC.

    It holds the byte order and the interfaces of the present section. `packets` raises
    CaptureError for inconsistent blocks, and CutShort when the file ends inside a block.
    """

    def __init__(self, source: ByteSource, tally: Tally) -> None:
        self._source = source
        self._tally = tally
        self._order = "<"
        self.interfaces: list[Interface] = []
        self._data = b""  # the window
        self._at = 0  # where the present block begins in it
        self.ended = False  # `step` has found the end

    def packets(self) -> Iterator[Packet]:
        """All packets in the order of the file."""
        while not self.ended:
            packet = self.step()
            if packet is not None:
                yield packet

    def step(self, stop: int | None = None) -> Packet | None:
        """Read one block; returns its packet, or None when it has none. `ended` is then true if
        there is no block left, or the next one begins at byte `stop` of the content or behind
        it."""
        length = self._next_block()
        if not length or (stop is not None and self._source.base + self._at >= stop):
            self.ended = True
            return None
        (kind,) = self._unpack("I", self._at)
        body, end = self._at + 8, self._at + length - 4
        packet: Packet | None = None
        if kind == _SECTION:
            self._section(body, end)
        elif kind == _INTERFACE:
            self._interface(body, end)
        elif kind in (_ENHANCED, _PACKET):
            packet = self._packet(kind, body, end)
        elif kind == _SIMPLE:
            packet = self._simple_packet(body, end)
        self._at += length
        return packet

    @property
    def at(self) -> int:
        """Where the next block begins in the window of the source."""
        return self._at

    @property
    def order(self) -> str:
        """The byte order of the present section, "<" or ">"."""
        return self._order

    def move(self, at: int) -> None:
        """Go on at byte `at` of the window of the source, where a block must begin."""
        self._data, self._at = self._source.data, at

    def enter(self, order: str, interfaces: list[Interface]) -> None:
        """Go on inside a section with this byte order and these interfaces."""
        self._order, self.interfaces = order, list(interfaces)

    def _unpack(self, layout: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + layout, self._data, at)

    def _broken(self, what: str) -> CaptureError:
        return self._tally.broken_block(self._source.base + self._at, what)

    def _ends(self, what: str) -> CutShort:
        return self._tally.ends_inside_block(self._source.base + self._at, what)

    def _need(self, count: int) -> int:
        """Move the window to the present block; returns the number of bytes there, at least
        `count` unless the file ends."""
        left = len(self._data) - self._at
        if left < count:
            self._data = self._source.need(self._at, count)
            self._at = 0
            left = len(self._data)
        return left

    def _next_block(self) -> int:
        """The length of the block at `at`, checked against its copy at the end and the size of the
        file; 0 at the end of the file."""
        left = self._need(_BLOCK_OVERHEAD)
        if left == 0:
            return 0
        if self._data[self._at : self._at + 4] == MAGIC:
            self._byte_order()
        if left < 8:
            raise self._ends(f"ends after {left} bytes")
        (length,) = self._unpack("I", self._at + 4)
        if length < _BLOCK_OVERHEAD or length % 4:
            raise self._broken(f"has a length of {length}, which no block can have")
        if length > _BLOCK_BYTES_MAX:
            return self._skip(length)
        left = self._need(length)
        if left < length:
            raise self._ends(f"ends after {left} of its {length} bytes")
        (again,) = self._unpack("I", self._at + length - 4)
        if again != length:
            raise self._broken(f"has two lengths, {length} at its start and {again} at its end")
        return length

    def _skip(self, length: int) -> int:
        """Move the window behind a long block; returns the length of the next one."""
        if self._unpack("I", self._at)[0] in (_SECTION, _INTERFACE, _ENHANCED, _PACKET, _SIMPLE):
            kind = "a packet or the description of an interface"
            raise self._broken(f"has a length of {length}, which is too much for {kind}")
        begin, done = self._source.base + self._at, 0
        while done < length:
            left = min(self._need(1), length - done)
            if left == 0:
                what = f"ends after {done} of its {length} bytes"
                raise self._tally.ends_inside_block(begin, what)
            done += left
            self._at += left
        return self._next_block()

    def _byte_order(self) -> None:
        """Set the byte order from the section header at `at`."""
        magic = self._data[self._at + 8 : self._at + 12]
        for order in "<>":
            if magic == struct.pack(order + "I", _BYTE_ORDER_MAGIC):
                self._order = order
                return
        if len(magic) < 4:
            raise self._ends(f"ends after {len(self._data) - self._at} bytes")
        raise self._broken("is a section header without a byte-order mark")

    def _section(self, body: int, end: int) -> None:
        if end - body < 16:
            raise self._broken("is too short for a section header")
        (major,) = self._unpack("H", body + 4)
        if major != 1:
            path = self._tally.path
            raise CaptureError(
                f"{path}: is pcapng version {major}, and only 1 is supported; "
                f"convert it with editcap -F pcap {path} NEW"
            )
        self.interfaces = []

    def _interface(self, body: int, end: int) -> None:
        if end - body < 8:
            raise self._broken("is too short for an interface description")
        link_type, _, snap_length = self._unpack("HHI", body)
        units, offset, fcs = 1_000_000, 0, 0
        option = body + 8
        while option + 4 <= end:
            code, length = self._unpack("HH", option)
            value = option + 4
            if code == _OPTION_END:
                break
            if value + length > end:
                raise self._broken(f"has an option {code} that reaches beyond its end")
            if code == _OPTION_TSRESOL and length == 1:
                exponent = self._data[value]
                units = 1 << (exponent & 0x7F) if exponent & 0x80 else 10**exponent
            elif code == _OPTION_TSOFFSET and length == 8:
                (offset,) = self._unpack("q", value)
            elif code == _OPTION_FCSLEN and length == 1:
                # The draft says bits, but most writers, and Wireshark, use bytes.
                count = self._data[value]
                fcs = count // 8 if count >= 8 else count
            option = value + (length + 3 & ~3)
        self.interfaces.append(Interface(link_type, snap_length, units, offset, fcs))

    def _interface_of(self, number: int) -> Interface:
        """The interface `number` of a packet. Raises CaptureError when the section has none."""
        if number >= len(self.interfaces):
            raise self._tally.damaged(
                self._source.base + self._at,
                f"names interface {number}, and the section has {len(self.interfaces)}",
            )
        return self.interfaces[number]

    def _packet(self, kind: int, body: int, end: int) -> Packet:
        """An enhanced packet block, or the obsolete one, which differs in the first word."""
        if end - body < 20:
            raise self._broken("is too short for a packet")
        (number,) = self._unpack("I" if kind == _ENHANCED else "H", body)
        high, low, captured, original = self._unpack("IIII", body + 4)
        interface = self._interface_of(number)
        time = (high << 32 | low) * 1_000_000_000 // interface.units
        time += interface.offset * 1_000_000_000
        return self._made(body + 20, end, captured, original, time, interface)

    def _simple_packet(self, body: int, end: int) -> Packet:
        """A simple packet block: it has no time and no captured length, so the snapshot length
        gives the captured length."""
        if end - body < 4:
            raise self._broken("is too short for a packet")
        (original,) = self._unpack("I", body)
        interface = self._interface_of(0)
        captured = min(original, interface.snap_length or original)
        return self._made(body + 4, end, captured, original, 0, interface)

    def _made(
        self, start: int, end: int, captured: int, original: int, time: int, interface: Interface
    ) -> Packet:
        """A packet whose bytes begin at `start`, in a block with room up to `end`."""
        at = self._source.base + self._at
        if captured > end - start:
            raise self._tally.damaged(
                at, f"claims {captured} bytes in a block with room for {end - start}"
            )
        if captured > FRAME_BYTES_MAX:
            self._tally.check_length(at, captured)
        data = memoryview(self._data)[start : start + captured]
        return Packet(at, time, original, interface.link_type, interface.fcs, self._order, data)
