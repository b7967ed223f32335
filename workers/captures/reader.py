"""Reads a capture from its begin to its end, frame by frame.

For any content of a file, it gives frames, or a CaptureError that says what is wrong and where.
Memory does not grow with the file: at most one block and one piece of it are held. Every length in
the file is compared with the bytes that exist before it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ringline.workers.captures import decompression, pcap, pcapng
from ringline.workers.captures.byte_source import ByteSource, File
from ringline.workers.captures.capture_table import (
    LINK_TYPE_ETHERNET,
    Capture,
    CaptureError,
    CutShort,
    Tally,
    link_type_name,
)
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.link_layers import can_become_ethernet, ethernet_frame
from ringline.workers.captures.packet import Frame, Packet

# First bytes of files that users often name instead of a capture -> the problem and what to do.
_NOT_CAPTURES = {
    b"PK\x03\x04": "is a zip archive; take the capture out of it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; take the capture out of it first",
    b"Rar!": "is a RAR archive; take the capture out of it first",
    b"\x1f\x9d": "is compressed with compress, which ringline does not read; decompress it first: "
    "uncompress {path}",
    b"\x89LZO": "is compressed with lzop, which ringline does not read; decompress it first: "
    "lzop -d {path}",
    b"LZIP": "is compressed with lzip, which ringline does not read; decompress it first: "
    "lzip -d {path}",
    b"\x5d\x00\x00": "is compressed with the old format of lzma, which ringline does not read; "
    "decompress it first: unlzma {path}",
    b"\x02\x21\x4c\x18": "is compressed with the old format of lz4, which ringline does not read; "
    "decompress it first: unlz4 {path}",
    b"\xff\x06\x00\x00sNaPpY": "is compressed with snappy, which ringline does not read; "
    "decompress it first",
    b"\x34\xcd\xb2\xa1": "is in Kuznetzov's variant of pcap; "
    "convert it with editcap -F pcap {path} NEW",
    b"\xa1\xb2\xcd\x34": "is in Kuznetzov's variant of pcap; "
    "convert it with editcap -F pcap {path} NEW",
    b"snoop\0": "is a snoop capture; convert it with editcap -F pcap {path} NEW",
}
_MAGIC_BYTES = max(map(len, _NOT_CAPTURES))


class CaptureReader:
    """The frames of the pcap or pcapng file at `tally.file`; its first bytes tell the format and
    the compression. Iterate over it once, and close it.

    tally: counts the packets; read its remarks at the end.
    descriptor: an open file to read instead, which may be a pipe; it stays open.
    file: where its bytes are, if they are in no file; it is closed with this object.
    any_link: packets of other link layers get an Ethernet header if they can; otherwise they are
        left out, and a file without any Ethernet frame is refused.
    access: `tally.file` may be a URL, which is opened so.

    source, packets: the window over the file, and what finds the packets in it.

    Raises CaptureError when the file does not exist, cannot be read, or is not a capture with
    frames that can be used; the iteration raises it for damage on the way. A capture without
    packets, and what `Tally.remarks` tells, are not errors.
    """

    def __init__(
        self,
        tally: Tally,
        *,
        descriptor: int | None = None,
        any_link: bool = False,
        access: Access | None = None,
        file: File | None = None,
    ) -> None:
        self.tally = tally
        self._any_link = any_link
        self.last: int | None = None  # the time of the last frame that had one
        self.source = ByteSource(tally, descriptor, access, file)
        try:
            self.packets = self._reader()
            self._packets = self.packets.packets()
        except CutShort as error:  # before the first packet: there is nothing to use
            self.close()
            raise CaptureError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _reader(self) -> pcap.PcapReader | pcapng.PcapngReader:
        source, tally = self.source, self.tally
        data = source.need(0, _MAGIC_BYTES)
        if data[:4] == pcapng.MAGIC:
            return pcapng.PcapngReader(source, tally)
        if data[:4] not in pcap.MAGICS:
            raise CaptureError(_what_it_is_instead(tally.path, data))
        reader = pcap.PcapReader(source, tally)
        if not self._takes(reader.link_type):
            raise self.refused([reader.link_type])
        return reader

    def _takes(self, link_type: int) -> bool:
        return link_type == LINK_TYPE_ETHERNET or (
            self._any_link and can_become_ethernet(link_type)
        )

    def refused(self, link_types: list[int]) -> CaptureError:
        """The error when none of the packets, of these link types, can be used."""
        kinds = ", ".join(link_type_name(kind) for kind in link_types)
        if self._any_link:
            why = "and no Ethernet frame can be made of it"
        else:
            why = "and only Ethernet (1) can be replayed to a network card"
        remedy = "capture on an Ethernet interface"
        if not self._any_link and all(map(can_become_ethernet, link_types)):
            remedy += ", or use ringline try, which makes up an Ethernet header"
        return CaptureError(f"{self.tally.path}: has link type {kinds}, {why}; {remedy}")

    def __iter__(self) -> Iterator[Frame]:
        tally = self.tally
        try:
            yield from self._frames()
        except CutShort as error:
            self.accept_cut(error)
        if tally.left_out and not tally.used:
            raise self.refused(sorted(tally.left_out))

    def accept_cut(self, error: CutShort) -> None:
        """Note that the file is cut short. Raises CaptureError unless it may be."""
        if not self.tally.to_cut:
            raise CaptureError(str(error)) from error
        self.tally.cut_at = error.cut

    def _frames(self) -> Iterator[Frame]:
        for packet in self._packets:
            frame = self.frame_of(packet)
            if frame is not None:
                yield frame

    def frame_of(self, packet: Packet) -> Frame | None:
        """The frame of the next packet, mended and counted; None when it is left out. Raises
        CaptureError when it is shorter than its frame check sequence."""
        tally = self.tally
        original = packet.original - packet.fcs
        if original < 0:
            raise tally.damaged(
                packet.at, f"is shorter than its frame check sequence of {packet.fcs} bytes"
            )
        tally.packets += 1
        data: bytes | memoryview = packet.data
        if len(data) > original:
            tally.overlong += len(data) > packet.original
            data = packet.data[:original]
        if packet.link_type != LINK_TYPE_ETHERNET:
            made = self._made_up(packet, original)
            if made is None:
                tally.left_out[packet.link_type] += 1
                return None
            data, original = made
            tally.made_up[packet.link_type] += 1
        tally.used += 1
        tally.cut += len(data) < original
        time, last = packet.nanoseconds, self.last
        if not -(1 << 63) <= time < 1 << 63:
            tally.misdated += 1
            time = last or 0
        elif last is not None and time and time < last:
            tally.backward += 1
        self.last = time or last
        return Frame(tally.packets, time, original, data)

    def _made_up(self, packet: Packet, original: int) -> tuple[bytes, int] | None:
        """An Ethernet frame of a packet without one, and its length on the wire; None if that
        cannot be. `original` is the length of the packet on the wire."""
        if not self._any_link:
            return None
        data = packet.data[:original]
        return ethernet_frame(packet.link_type, data, original, packet.byte_order)

    @property
    def share(self) -> float:
        """How much of the file was read, from 0 to 1; 0 when its size is not known."""
        return self.source.share

    @property
    def bytes_read(self) -> int:
        """How many bytes of the content were read, after decompression."""
        return self.source.base

    def close(self) -> None:
        """Close the file, if it was opened here; may be called again."""
        self.source.close()

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def read_capture(path: str | os.PathLike[str], *, descriptor: int | None = None) -> Capture:
    """The whole capture of Ethernet frames at `path`, in memory; see CaptureReader."""
    capture = Capture(os.fspath(path))
    with CaptureReader(capture, descriptor=descriptor) as reader:
        for number, time, original, data in reader:
            capture.offsets.append(len(capture.data))
            capture.data += data
            capture.lengths.append(len(data))
            capture.original_lengths.append(original)
            capture.times.append(time)
            capture.numbers.append(number)
    return capture


def _what_it_is_instead(path: str, data: bytes) -> str:
    if not data:
        return f"{path}: is empty; a capture has at least a header"
    for start, what in _NOT_CAPTURES.items():
        if data.startswith(start):
            return f"{path}: {what.format(path=path)}"
    if data.lower().startswith((b"<!doctype", b"<html")):
        return (
            f"{path}: is a page of a web site, not a capture; the URL of a folder with captures "
            "ends with /"
        )
    known = decompression.format_of(data)
    if known is not None:
        return f"{path}: is compressed twice; decompress it once more: {known.tool} {path}"
    if len(data) < 4 and any(magic.startswith(data) for magic in (*pcap.MAGICS, pcapng.MAGIC)):
        return f"{path}: ends after {len(data)} bytes, in the middle of its header; copy it again"
    return f"{path}: is not a capture: it does not begin like pcap or pcapng"
