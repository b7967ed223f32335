"""What is known of a capture: a tally of its packets, and, for a short one, a table of its frames.

A reader keeps what is good. Packets that cannot be Ethernet frames are left out; a wrong length
on the wire or an impossible time is mended. `Tally.remarks` says how many there were. Only damage,
after which no packet can be found, is an error.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import overload

from ringline.shm.errors import RinglineError
from ringline.shm.text import printable
from ringline.workers.captures.files.names import is_url, shown

LINK_TYPE_ETHERNET = 1

# The largest snapshot length of libpcap (MAXIMUM_SNAPLEN); no link layer has longer frames.
# A larger length means that the file is damaged.
FRAME_BYTES_MAX = 262_144

# Names of common link types other than Ethernet (tcpdump.org/linktypes.html).
_LINK_TYPES = {
    0: "BSD loopback",
    9: "PPP",
    12: "raw IP",
    101: "raw IP",
    105: "IEEE 802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked capture v1",
    127: "IEEE 802.11 with radiotap header",
    147: "user-defined",
    189: "USB, Linux",
    192: "per-packet information",
    195: "IEEE 802.15.4",
    228: "raw IPv4",
    229: "raw IPv6",
    239: "netfilter log",
    249: "USB, USBPcap",
    252: "Wireshark upper PDU",
    253: "netlink",
    276: "Linux cooked capture v2",
}


class CaptureError(RinglineError):
    """A capture that cannot be read or written. The message says which file, where, what to do."""

    exit_code = 2


class CutShort(CaptureError):
    """A capture that ends inside a packet, a block or its compressed data.

    cut: what ends where, as a part of a sentence.
    """

    def __init__(self, message: str, cut: str = "") -> None:
        super().__init__(message)
        self.cut = cut


def link_type_name(link_type: int) -> str:
    """`link_type` as a number with its name, for messages."""
    return f"{link_type} ({_LINK_TYPES.get(link_type, 'not a common one')})"


class Tally:
    """The packets of a capture, counted while it is read; and the errors that name their places.

    Attributes:
        file: the file.
        path: the same for messages: what a terminal would obey is escaped, and a URL has no
            password.
        of: words behind a byte offset, for a compressed file: the offset is after decompression.
        to_cut: a file that is cut short is played up to the cut.
        packets: how many packets were read, those that were left out included.
        used: how many of them are frames for the plugin or the wire.
        cut: number of frames that are longer on the wire than in the file.
        overlong: number of frames with more bytes in the file than on the wire. They have the
            bytes that were on the wire.
        misdated: number of frames with a time outside of int64. They have the time before it.
        backward: number of frames with a time before that of the frame before them.
        made_up: number of frames with a made-up Ethernet header, by link type.
        left_out: number of packets that are not, and cannot become, Ethernet frames, by link type.
        cut_at: where the file is cut short, as a part of a sentence; None if it is not, or not yet.
    """

    def __init__(self, path: str, *, to_cut: bool = False) -> None:
        self.file = path
        self.path = printable(shown(path))
        self.of = ""
        self.to_cut = to_cut
        self.packets = 0
        self.used = 0
        self.cut = 0
        self.overlong = 0
        self.misdated = 0
        self.backward = 0
        self.made_up: Counter[int] = Counter()
        self.left_out: Counter[int] = Counter()
        self.cut_at: str | None = None

    def remarks(self, *, clock: bool = True) -> list[str]:
        """A sentence about each kind of packets that were not used as they are. Without `clock`,
        the order of their times does not matter."""
        remarks = []
        if self.cut_at is not None:
            before = _good(self.packets)
            if self.left_out:
                before = f"{self.used} of the {self.packets} before it are"
            remarks.append(f"{self.path}: {self.cut_at}; the file is cut short, and {before} used")
        if self.made_up:
            remarks.append(
                f"{self.path}: {self.made_up.total()} of {self.packets} packets have no Ethernet "
                f"header, so ringline made one up: {_kinds(self.made_up)}"
            )
        if self.cut:
            remarks.append(
                f"{self.path}: {self.cut} of {self.used} frames were cut when they were "
                f"captured and are used as they are in the file; capture again with tcpdump -s 0 "
                f"for whole frames"
            )
        if self.overlong:
            remarks.append(
                f"{self.path}: {self.overlong} of {self.used} frames have more bytes in the file "
                f"than they had on the wire; the bytes after that are left out"
            )
        if self.misdated:
            remarks.append(
                f"{self.path}: {self.misdated} of {self.used} frames have a time stamp centuries "
                f"away from now; each gets the time of the frame before it"
            )
        if self.backward and clock:
            remarks.append(
                f"{self.path}: the clock of the capture steps back: {self.backward} of {self.used} "
                f"frames have a time stamp before that of the frame before them"
            )
        if self.left_out:
            remarks.append(
                f"{self.path}: {self.left_out.total()} of {self.packets} packets are not Ethernet "
                f"frames and are left out: {_kinds(self.left_out)}"
            )
        return remarks

    def remark(self, *, clock: bool = True) -> str | None:
        """All remarks as one sentence, or None when there are none."""
        return "; ".join(self.remarks(clock=clock)) or None

    def check_length(self, at: int, captured: int) -> None:
        """Raise CaptureError when no packet has `captured` bytes."""
        if captured > FRAME_BYTES_MAX:
            raise self.damaged(at, f"claims to hold {captured} bytes; no Ethernet frame does")

    def damaged(self, at: int, what: str) -> CaptureError:
        """The error for the packet after the last good one; it begins at byte `at` of the file."""
        place = f"packet {self.packets + 1}, at byte {at}{self.of}, {what}"
        return CaptureError(
            f"{self.path}: {place}; {_good(self.packets)} good. {self.way_out(cut=False)}"
        )

    def ends_inside_packet(self, at: int, what: str) -> CutShort:
        """The error when the file ends inside the packet that begins at byte `at`."""
        place = f"packet {self.packets + 1}, at byte {at}{self.of}, {what}"
        return CutShort(
            f"{self.path}: {place}; {_good(self.packets)} good. {self.way_out(cut=True)}", place
        )

    def broken_block(self, at: int, what: str) -> CaptureError:
        """The error for a block of pcapng that begins at byte `at` of the file."""
        return CaptureError(f"{self._block(at, what, self.path + ': ')}. {self.way_out(cut=False)}")

    def ends_inside_block(self, at: int, what: str) -> CutShort:
        """The error when the file ends inside the block that begins at byte `at`."""
        return CutShort(
            f"{self._block(at, what, self.path + ': ')}. {self.way_out(cut=True)}",
            self._block(at, what, ""),
        )

    def changed(self) -> str:
        """The sentence when the file is not what it was at the begin."""
        return (
            f"{self.path}: has changed while it was read: analyze it when the program that writes "
            "it has ended"
        )

    def _block(self, at: int, what: str, before: str) -> str:
        return f"{before}the block at byte {at}{self.of}, after {self.packets} good packets, {what}"

    def way_out(self, *, cut: bool) -> str:
        """What to do with a damaged file, as a sentence without its full stop. `cut`: nothing is
        wrong with it but its end."""
        remedy = ""
        if self.packets:
            file = "FILE" if is_url(self.file) else self.path
            download = "download it and " if is_url(self.file) else ""
            remedy = f", or {download}keep what is good with tcpdump -r {file} -w NEW"
        if self.packets and cut:
            remedy = (
                ", or use what is good with --cut (where a configuration names the capture: "
                'cut = "play")'
            )
        return f"The file is damaged or was not written to its end: copy it again{remedy}"


def _good(packets: int) -> str:
    """How many packets came before, as the beginning of a sentence."""
    if packets == 1:
        return "the one before it is"
    return f"the {packets} before it are" if packets else "no packet before it is"


def _kinds(numbers: Counter[int]) -> str:
    return ", ".join(
        f"{number} of link type {link_type_name(kind)}" for kind, number in sorted(numbers.items())
    )


class Frames(Sequence[memoryview]):
    """The frames of a capture as a sequence of read-only memoryviews."""

    __slots__ = ("_lengths", "_offsets", "_view")

    def __init__(self, data: bytearray, offsets: array[int], lengths: array[int]) -> None:
        self._view = memoryview(data).toreadonly()
        self._offsets = offsets
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        start = self._offsets[index]
        return self._view[start : start + self._lengths[index]]

    def __iter__(self) -> Iterator[memoryview]:
        view = self._view
        for start, length in zip(self._offsets, self._lengths, strict=True):
            yield view[start : start + length]


class Capture(Tally):
    """A whole capture in memory: the bytes of its frames, and 28 bytes more for each.

    Attributes, besides those of Tally:
        data: the bytes of all frames, one behind the other.
        offsets: offset of each frame in `data`, in bytes; array('Q').
        lengths: bytes of each frame in `data`, without a frame check sequence; array('I').
        original_lengths: bytes of each frame on the wire, at least `lengths`; array('I').
        times: nanoseconds since 1970 of each frame, 0 if the file has none; array('q').
        numbers: number of each frame in the file, from 1, as other programs show it; array('I').
    """

    def __init__(self, path: str, *, to_cut: bool = False) -> None:
        super().__init__(path, to_cut=to_cut)
        self.data = bytearray()
        self.offsets = array("Q")
        self.lengths = array("I")
        self.original_lengths = array("I")
        self.times = array("q")
        self.numbers = array("I")

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def frames(self) -> Frames:
        """The frames in the order of the file."""
        return Frames(self.data, self.offsets, self.lengths)
