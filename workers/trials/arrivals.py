"""The frames of a trial, as a card delivers them, on their way to the child process.

The command computes them with the device model and the receive burst of the driver, which a
worker may not import. It writes them to a pipe; the child (dry_run.py) reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import IO, NamedTuple, Protocol

_HEADER = Struct("<IqIHBxH")  # the fields of Arrived without `data`, then the bytes of `data`


class Arrived(NamedTuple):
    """A frame that a card delivered.

    number: of the frame in its capture, from 1.
    nanoseconds: its time in the capture, since 1970.
    rss_hash, vlan_tci, flags: as in a reference (RL_FLAG_*).
    data: its bytes.
    """

    number: int
    nanoseconds: int
    rss_hash: int
    vlan_tci: int
    flags: int
    data: bytes


class Source(Protocol):
    """Where the frames of a trial come from; it is read once.

    path: the capture, for messages.
    too_long: how many frames the card has dropped so far, because they are too long.
    """

    path: str
    too_long: int

    def __len__(self) -> int:
        """How many frames the capture has."""
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
        number, nanoseconds, rss_hash, vlan_tci, flags, length = _HEADER.unpack(header)
        yield Arrived(number, nanoseconds, rss_hash, vlan_tci, flags, pipe.read(length))
