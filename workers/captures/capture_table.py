"""Captured frames in memory: what the readers of pcap and pcapng fill.

One bytes object holds the file; three arrays say where each frame is, how long
it was on the wire and when it passed. A frame is a memoryview of that object,
made when it is asked for, so a million frames cost 24 bytes each and no copies.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from ringline.shm.errors import RinglineError

LINK_TYPE_ETHERNET = 1

# No link layer has longer frames, and libpcap allows no larger snapshot length
# (MAXIMUM_SNAPLEN). A length above it is damage, and is refused before it is used.
FRAME_BYTES_MAX = 262_144

# Names of link types that one meets instead of Ethernet (tcpdump.org/linktypes.html).
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
    """A capture that cannot be read or written: says which file, where in it and what to do."""

    exit_code = 2


def link_type_name(link_type: int) -> str:
    """`link_type` as number and name, for messages."""
    return f"{link_type} ({_LINK_TYPES.get(link_type, 'not a common one')})"


class Frames(Sequence[memoryview]):
    """The frames of a capture, by index; each a read-only memoryview, nothing copied."""

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
    """A capture file, read whole.

    Attributes:
        path: the file, for messages.
        data: its bytes.
        offsets: of each frame in `data`, array('Q').
        lengths: bytes of each frame in `data`, without a frame check sequence, array('I').
        original_lengths: bytes of each frame on the wire; never below `lengths`, array('I').
        times: nanoseconds since 1970 of each frame, array('q'); 0 where the format has none.
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
        """How many frames were longer on the wire than the snapshot length let into the file."""
        return sum(map(int.__lt__, self.lengths, self.original_lengths))

    def remark(self) -> str | None:
        """One sentence about frames that are not whole, None when all are."""
        cut = self.cut
        if not cut:
            return None
        return (
            f"{self.path}: {cut} of {len(self)} frames were cut when they were captured and are "
            f"used as short as the file has them; capture again with tcpdump -s 0 for whole frames"
        )

    def add(
        self, at: int, offset: int, captured: int, original: int, nanoseconds: int, fcs: int
    ) -> None:
        """For readers: one more frame, `captured` bytes at `offset`, the last `fcs` of the
        `original` ones being a frame check sequence, which a card takes off. What describes it
        in the file is `at`.

        Raises CaptureError when a length or the time stamp cannot be true.
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
        """The error for the packet after the last good one, which begins `at` in the file."""
        good = len(self)
        before = "no packet before it is" if not good else f"the {good} before it are"
        before = "the one before it is" if good == 1 else before
        return CaptureError(
            f"{self.path}: packet {good + 1}, at byte {at}, {what}; {before} good. "
            f"The file is damaged or was not written to its end: copy it again"
            + (f", or keep what is good with tcpdump -r {self.path} -w NEW" if good else "")
        )
