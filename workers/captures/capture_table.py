"""A capture in memory; the readers of pcap and pcapng fill it.

One bytes object holds the file. Five arrays hold the number, the offset, the captured length,
the original length and the time of each frame: 28 bytes per frame. A frame is a memoryview of
the bytes object, made on access; nothing is copied.

A reader keeps what is good. Packets of another link layer are left out; a wrong length on the
wire or an impossible time is mended. `remarks` says how many there were. Only damage, after
which no packet can be found, is an error.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import overload

from ringline.shm.errors import RinglineError

LINK_TYPE_ETHERNET = 1

# The largest snapshot length of libpcap (MAXIMUM_SNAPLEN); no link layer has longer frames.
# A larger length means that the file is damaged.
FRAME_BYTES_MAX = 262_144

# Names of common link types other than Ethernet (tcpdump.org/linktypes.html).
_LINK_TYPES = {
    0: "BSD loopback",
    9: "PPP",
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


def link_type_name(link_type: int) -> str:
    """`link_type` as a number with its name, for messages."""
    return f"{link_type} ({_LINK_TYPES.get(link_type, 'not a common one')})"


class Frames(Sequence[memoryview]):
    """The frames of a capture as a sequence of read-only memoryviews."""

    __slots__ = ("_lengths", "_offsets", "_view")

    def __init__(self, data: bytes, offsets: array[int], lengths: array[int]) -> None:
        self._view = memoryview(data)
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


class Capture:
    """A capture file in memory.

    Attributes:
        path: the file, for messages.
        data: its bytes.
        offsets: offset of each frame in `data`, in bytes; array('Q').
        lengths: bytes of each frame in `data`, without a frame check sequence; array('I').
        original_lengths: bytes of each frame on the wire, at least `lengths`; array('I').
        times: nanoseconds since 1970 of each frame, 0 if the file has none; array('q').
        numbers: number of each frame in the file, from 1, as other programs show it; array('I').
        overlong: number of frames with more bytes in the file than on the wire. They have the
            bytes that were on the wire.
        misdated: number of frames with a time outside of int64. They have the time before it.
        left_out: number of packets that are not Ethernet frames, by link type.
    """

    __slots__ = (
        "data",
        "left_out",
        "lengths",
        "misdated",
        "numbers",
        "offsets",
        "original_lengths",
        "overlong",
        "path",
        "times",
    )

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        self.offsets = array("Q")
        self.lengths = array("I")
        self.original_lengths = array("I")
        self.times = array("q")
        self.numbers = array("I")
        self.overlong = 0
        self.misdated = 0
        self.left_out: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def frames(self) -> Frames:
        """The frames in the order of the file."""
        return Frames(self.data, self.offsets, self.lengths)

    @property
    def cut(self) -> int:
        """How many frames are truncated: longer on the wire than in the file."""
        return sum(map(int.__lt__, self.lengths, self.original_lengths))

    def remarks(self) -> list[str]:
        """A sentence about each kind of packets that were not used as they are."""
        remarks = []
        if self.cut:
            remarks.append(
                f"{self.path}: {self.cut} of {len(self)} frames were cut when they were captured "
                f"and are used as they are in the file; capture again with tcpdump -s 0 for whole "
                f"frames"
            )
        if self.overlong:
            remarks.append(
                f"{self.path}: {self.overlong} of {len(self)} frames have more bytes in the file "
                f"than they had on the wire; the bytes after that are left out"
            )
        if self.misdated:
            remarks.append(
                f"{self.path}: {self.misdated} of {len(self)} frames have a time stamp centuries "
                f"away from now; each gets the time of the frame before it"
            )
        if self.left_out:
            kinds = ", ".join(
                f"{number} of link type {link_type_name(kind)}"
                for kind, number in sorted(self.left_out.items())
            )
            remarks.append(
                f"{self.path}: {self.left_out.total()} of {self.packets} packets are not Ethernet "
                f"frames and are left out: {kinds}"
            )
        return remarks

    def remark(self) -> str | None:
        """All remarks as one sentence, or None when there are none."""
        return "; ".join(self.remarks()) or None

    @property
    def packets(self) -> int:
        """How many packets were read, those that were left out included."""
        return len(self) + self.left_out.total()

    def add(
        self, at: int, offset: int, captured: int, original: int, nanoseconds: int, fcs: int
    ) -> None:
        """Add a frame; for the readers.

        at: where its header or block begins in the file, for messages.
        offset, captured: where its bytes are in the file, and their number.
        original: its bytes on the wire. The last `fcs` of them are a frame check sequence,
            which is left out, since a card removes it.
        nanoseconds: its time, since 1970.

        Raises CaptureError when a length is impossible.
        """
        self.check_length(at, captured)
        self.overlong += captured > original
        original -= fcs
        if original < 0:
            raise self.damaged(at, f"is shorter than its frame check sequence of {fcs} bytes")
        if not -(1 << 63) <= nanoseconds < 1 << 63:
            self.misdated += 1
            nanoseconds = self.times[-1] if self.times else 0
        self.offsets.append(offset)
        self.lengths.append(min(captured, original))
        self.original_lengths.append(original)
        self.times.append(nanoseconds)
        self.numbers.append(self.packets)

    def leave_out(self, at: int, captured: int, link_type: int) -> None:
        """Count a packet that is not an Ethernet frame; for the readers."""
        self.check_length(at, captured)
        self.left_out[link_type] += 1

    def check_length(self, at: int, captured: int) -> None:
        """Raise CaptureError when no packet has `captured` bytes."""
        if captured > FRAME_BYTES_MAX:
            raise self.damaged(at, f"claims to hold {captured} bytes; no Ethernet frame does")

    def damaged(self, at: int, what: str) -> CaptureError:
        """The error for the packet after the last good one; it begins at byte `at` of the file."""
        good = self.packets
        before = "no packet before it is" if not good else f"the {good} before it are"
        before = "the one before it is" if good == 1 else before
        return CaptureError(
            f"{self.path}: packet {good + 1}, at byte {at}, {what}; {before} good. {self.way_out()}"
        )

    def way_out(self) -> str:
        """What to do with a damaged file, as a sentence without its full stop."""
        return "The file is damaged or was not written to its end: copy it again" + (
            f", or keep what is good with tcpdump -r {self.path} -w NEW" if self.packets else ""
        )
