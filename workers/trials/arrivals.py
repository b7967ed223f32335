"""The frames of a trial, as a card delivers them, on their way to the child process.

The command computes them with the device model and the receive burst of the driver, which a
worker may not import. It writes them to a pipe; the child (dry_run.py) reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import IO, NamedTuple, Protocol

# The fields of Arrived without `data`, then the bytes of `data`.
_HEADER = Struct("<IqBIHBH")
_PORT_SHIFT = 56  # in a place: the bits above are the port, those below the number of a frame


class Arrived(NamedTuple):
    """A frame that a card delivered.

    number: of the frame in its capture, from 1.
    nanoseconds: its time in the capture, since 1970.
    port: the index of the port that received it.
    rss_hash, vlan_tci, flags: as in a reference (RL_FLAG_*).
    data: its bytes.
    """

    number: int
    nanoseconds: int
    port: int
    rss_hash: int
    vlan_tci: int
    flags: int
    data: bytes

    @property
    def place(self) -> int:
        """Which frame of which capture this is, as one number; never 0."""
        return self.port << _PORT_SHIFT | self.number


class Source(Protocol):
    """Where the frames of a trial come from; it is read once.

    too_long: how many frames the cards have dropped so far, because they are too long.
    """

    @property
    def too_long(self) -> int: ...

    @property
    def paths(self) -> Mapping[int, str]:
        """The capture of each port that has one, by the index of the port, for messages."""
        ...

    @property
    def share(self) -> float:
        """How much of the captures was read, from 0 to 1; 0 when that is not known."""
        ...

    def __iter__(self) -> Iterator[Arrived]: ...


def write(pipe: IO[bytes], arrived: Arrived) -> None:
    """Write one frame. Raises OSError when the child is gone."""
    *fields, data = arrived
    pipe.write(_HEADER.pack(*fields, len(data)))
    pipe.write(data)


def read(pipe: IO[bytes]) -> Iterator[Arrived]:
    """The frames that `write` wrote, until the end of the pipe."""
    while header := pipe.read(_HEADER.size):
        number, nanoseconds, port, rss_hash, vlan_tci, flags, length = _HEADER.unpack(header)
        yield Arrived(number, nanoseconds, port, rss_hash, vlan_tci, flags, pipe.read(length))


def span(first: int, last: int, names: Mapping[int, str]) -> str:
    """The frames between two places: `frames 1 to 64`, with the names of their captures when there
    are several."""
    (one, begin), (other, end) = (
        (place >> _PORT_SHIFT, place & (1 << _PORT_SHIFT) - 1) for place in (first, last)
    )
    if len(names) < 2:
        return f"frames {begin} to {end}"
    return f"frames from {begin} of {names[one]} to {end} of {names[other]}"
