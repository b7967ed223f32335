"""A capture in memory; the readers of pcap and pcapng fill it.

One bytes object holds the file. Four arrays hold the offset, the captured length, the
original length and the time of each frame: 24 bytes per frame. A frame is a memoryview of
the bytes object, made on access; nothing is copied.
"""

from __future__ import annotations

from array import array
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
    """

    __slots__ = ("data", "lengths", "offsets", "original_lengths", "path", "times")

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        self.offsets = array("Q")
        self.lengths = array("I")
        self.original_lengths = array("I")
        self.times = array("q")

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

    def remark(self) -> str | None:
        """A sentence about truncated frames, or None when there are none."""
        cut = self.cut
        if not cut:
            return None
        return (
            f"{self.path}: {cut} of {len(self)} frames were cut when they were captured and are "
            f"used as they are in the file; capture again with tcpdump -s 0 for whole frames"
        )

    def add(
        self, at: int, offset: int, captured: int, original: int, nanoseconds: int, fcs: int
    ) -> None:
        """Add a frame; for the readers.

        at: where its header or block begins in the file, for messages.
        offset, captured: where its bytes are in the file, and their number.
        original: its bytes on the wire. The last `fcs` of them are a frame check sequence,
            which is left out, since a card removes it.
        nanoseconds: its time, since 1970.

        Raises CaptureError when a length or the time is impossible.
        """
        if captured > FRAME_BYTES_MAX:
            raise self.damaged(at, f"claims to hold {captured} bytes; no Ethernet frame does")
        original = max(original, captured) - fcs
        if original < 0:
            raise self.damaged(at, f"is shorter than its frame check sequence of {fcs} bytes")
        if not -(1 << 63) <= nanoseconds < 1 << 63:
            raise self.damaged(at, "has a time stamp centuries away from now")
        self.offsets.append(offset)
        self.lengths.append(min(captured, original))
        self.original_lengths.append(original)
        self.times.append(nanoseconds)

    def damaged(self, at: int, what: str) -> CaptureError:
        """The error for the packet after the last good one; it begins at byte `at` of the file."""
        good = len(self)
        before = "no packet before it is" if not good else f"the {good} before it are"
        before = "the one before it is" if good == 1 else before
        return CaptureError(
            f"{self.path}: packet {good + 1}, at byte {at}, {what}; {before} good. "
            f"The file is damaged or was not written to its end: copy it again"
            + (f", or keep what is good with tcpdump -r {self.path} -w NEW" if good else "")
        )
