"""A capture, or a range of it, for the reader in C (scan.c).

C takes the packets that are as usual; the readers in Python (pcap.py, pcapng.py) take the others
and find every error, so that its sentence and its place are theirs. Both use the same window.

A range of a file begins at its first packet or block, or somewhere: then the first consistent
chain of packets is taken as its begin. This can be wrong; `begin` says what was taken, and whoever
reads the range before it finds out where it really begins.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any, NamedTuple

from ringline.workers._workers import ffi, lib
from ringline.workers.captures.byte_source import File
from ringline.workers.captures.capture_table import LINK_TYPE_ETHERNET, CutShort, Tally
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.packet import Frame
from ringline.workers.captures.pcap import FILE_HEADER_BYTES, PcapReader
from ringline.workers.captures.pcapng import Interface, PcapngReader
from ringline.workers.captures.reader import CaptureReader

# Of a compressed capture, C looks at so many bytes between two reads, at least. For a larger
# window, the C library would get the memory from the kernel each time, page by page.
WINDOW_BYTES = 1 << 16
# Of another one, C has a window of its own: that saves a copy. It has room for any packet.
OWN_BYTES = 1 << 19
_PIECE_BYTES = 1 << 17  # of one read into it
PROBE_BYTES = 4 << 20  # in which a range without a known begin must begin
_NO_STOP = (1 << 64) - 1
_OURS = "<"  # the byte order of all machines that ringline runs on


class Section(NamedTuple):
    """What must be known of a pcapng file to go on in the middle of it.

    order: the byte order of the section.
    interfaces: its interfaces so far: (link type, snapshot length, units, offset, FCS bytes).
    """

    order: str
    interfaces: list[list[int]]


class Range(NamedTuple):
    """A part of a capture.

    start: its first byte; 0: the begin of the file.
    stop: packets that begin there or later are not in it; None: the end of the file.
    is_guess: a packet need not begin at `start`: the first one behind it is searched.
    section: of pcapng, at `start`; None: as at the begin of the file.
    packets: how many packets are before it, for messages.
    last: the time of the packet before it; None: not known.
    """

    start: int = 0
    stop: int | None = None
    is_guess: bool = False
    section: Section | None = None
    packets: int = 0
    last: int | None = None


class Scanner:
    """Reads the packets of `part` of the capture at `tally.file` with `scan`, a struct rl_scan *
    whose `memory` is set. With `access`, it may be a URL; `file` has the bytes instead. Close it.

    begin: where the first packet or block of the range begins; None: none was found.
    needs_last: the range began with a packet that has the time of the packet before it, and
        that was not known.

    Raises CaptureError as CaptureReader does.
    """

    def __init__(
        self,
        tally: Tally,
        scan: Any,
        part: Range,
        access: Access | None = None,
        file: File | None = None,
    ) -> None:
        self._reader = CaptureReader(tally, any_link=True, access=access, file=file)
        self._reader.source.expect(part.stop)
        self._scan = scan
        self._tally = tally
        self._stop = part.stop
        self._held: Any = None  # keeps the window
        self._fd = self._reader.source.descriptor
        size = OWN_BYTES if self._fd is not None else 1
        self._own = memoryview(ffi.buffer(scan.own, size) if scan.own else bytearray(size))
        self._own_data = ffi.from_buffer(self._own)
        self._base = 0  # where the window of C begins in the content
        self._interfaces: Any = None
        self._known: list[Interface] = []
        self.begin: int | None = 0
        self.needs_last = False
        self.ended = False
        self.identity = self._reader.source.identity
        try:
            self._enter(part)
        except BaseException:
            self.close()
            raise

    def _enter(self, part: Range) -> None:
        reader, scan, packets = self._reader, self._scan, self._reader.packets
        if isinstance(packets, PcapReader):
            scan.pcapng, scan.unit, scan.usual = 0, packets.unit, packets.is_usual
            scan.swap = packets.order != _OURS
            if not part.start:
                self.begin = FILE_HEADER_BYTES
        else:
            scan.pcapng, scan.usual = 1, 1
        if part.start:
            self._seek(part)
        self._tally.packets = scan.packets = part.packets
        reader.last = part.last
        self._sync()

    def _seek(self, part: Range) -> None:
        source, packets, scan = self._reader.source, self._reader.packets, self._scan
        seconds = 0
        if isinstance(packets, PcapngReader):
            while part.section is None and not packets.ended and packets.step() is None:
                pass
            order, interfaces = part.section or self.section() or (_OURS, [])
            source.seek(part.start)
            packets.enter(order, [Interface(*numbers) for numbers in interfaces])
            packets.ended = False
            scan.swap = order != _OURS
        else:
            head = source.need(FILE_HEADER_BYTES, 4)
            if len(head) >= 4:
                (seconds,) = struct.unpack_from(packets.order + "I", head)
            source.seek(part.start)
        self.begin = part.start
        at = 0
        if part.is_guess:
            self._held = data = source.need(0, PROBE_BYTES)
            scan.data, scan.size, scan.at = ffi.from_buffer(data), len(data), 0
            at = lib.rl_probe(scan, len(data) < PROBE_BYTES, seconds)
            self.begin = part.start + at if at >= 0 else None
            self.ended = at < 0
        packets.move(max(at, 0))

    def section(self) -> Section | None:
        """What is known of a pcapng file here; None for pcap."""
        packets = self._reader.packets
        if not isinstance(packets, PcapngReader):
            return None
        interfaces = [
            [it.link_type, it.snap_length, it.units, it.offset, it.fcs] for it in packets.interfaces
        ]
        return Section(packets.order, interfaces)

    @property
    def position(self) -> int:
        """The byte of the content where the next packet or block begins."""
        return int(self._base + self._scan.at)

    @property
    def last(self) -> int | None:
        """The time of the last packet that had one."""
        return int(self._scan.last) if self._scan.timed else None

    def _sync(self) -> None:
        """Let C go on where Python is."""
        scan, source, packets = self._scan, self._reader.source, self._reader.packets
        if self._fd is None:
            self._held, self._base = source.data, source.base
            scan.data, scan.size = ffi.from_buffer(source.data), len(source.data)
            scan.at = packets.at
        else:
            at = source.base + packets.at
            if scan.data != self._own_data or not self._base <= at <= self._base + scan.size:
                self._base, scan.data, scan.size = at, self._own_data, 0
            scan.at = at - self._base
        self._set_stop()
        scan.packets = self._tally.packets
        last = self._reader.last
        scan.timed, scan.last = last is not None, last or 0
        if isinstance(packets, PcapngReader):
            scan.swap = packets.order != _OURS
            if self._known != packets.interfaces:
                self._known = list(packets.interfaces)
                self._interfaces = ffi.new("struct rl_scan_interface[]", len(self._known) or 1)
                for place, interface in zip(self._interfaces, self._known, strict=False):
                    _describe(place, interface)
                scan.interface, scan.interfaces = self._interfaces, len(self._known)

    def _set_stop(self) -> None:
        stop = self._stop
        self._scan.stop = _NO_STOP if stop is None else max(stop - self._base, 0)

    def _book(self) -> None:
        """Count for the tally what C has read, and let Python go on where C is."""
        scan, tally, reader = self._scan, self._tally, self._reader
        read = scan.packets - tally.packets
        tally.packets += read
        tally.used += read
        tally.cut += scan.cut
        tally.backward += scan.backward
        scan.cut = scan.backward = 0
        if scan.timed:
            reader.last = scan.last
        source, at = reader.source, self.position
        if not source.base <= at <= source.base + len(source.data):
            source.seek(at)
        reader.packets.move(at - source.base)

    def extend(self) -> bool:
        """Move the window to the next packet, and let it be longer than it was behind there;
        whether it is."""
        if self._fd is not None:
            return self._extend_own(self._fd)
        scan, source = self._scan, self._reader.source
        self._book()
        left = scan.size - scan.at
        with contextlib.suppress(CutShort):  # `read` raises it behind the last whole packet
            source.need(scan.at, max(WINDOW_BYTES, left + 1))
        self._reader.packets.move(0)
        self._sync()
        return bool(scan.size > left)

    def _extend_own(self, fd: int) -> bool:
        scan, own = self._scan, self._own
        at, left = scan.at, scan.size - scan.at
        if left + _PIECE_BYTES > OWN_BYTES:
            return False  # a block that is larger: Python reads it
        own[:left] = own[at : at + left]
        self._base += at
        scan.at, scan.size = 0, left
        self._set_stop()
        try:
            read = os.preadv(fd, [own[left : left + _PIECE_BYTES]], self._base + left)
        except OSError:
            return False  # Python gets the same error, and says it
        scan.size = left + read
        return read > 0

    def read(self) -> Frame | None:
        """Read the next packet or block with Python: its frame, or None when it has none. `ended`
        is then true if there is none left. Raises CaptureError."""
        reader, scan = self._reader, self._scan
        self._book()
        try:
            packet = reader.packets.step(self._stop)
        except CutShort as error:
            reader.accept_cut(error)
            self.ended = True
            return None
        self.ended = reader.packets.ended
        frame = None
        if packet is not None:
            known, misdated = reader.last is not None, self._tally.misdated
            frame = reader.frame_of(packet)
            self.needs_last |= self._tally.misdated > misdated and not known
        self._sync()
        if frame is not None:
            scan.bytes += frame.original
            if frame.nanoseconds and not scan.begun:
                scan.begun, scan.first = 1, frame.nanoseconds
        return frame

    def finish(self) -> None:
        """Count the last packets for the tally."""
        self._book()

    def has_changed(self) -> bool:
        """Whether the file is another one than at the begin."""
        return self._reader.source.has_changed()

    def close(self) -> None:
        """Close the file; may be called again."""
        self._reader.close()


def _describe(place: Any, interface: Interface) -> None:
    """Fill a struct rl_scan_interface."""
    usual = interface.link_type == LINK_TYPE_ETHERNET and not interface.fcs
    offset = interface.offset * 1_000_000_000
    usual = usual and interface.units < 1 << 64 and -(1 << 63) <= offset < 1 << 63
    place.units, place.offset = (interface.units, offset) if usual else (0, 0)
