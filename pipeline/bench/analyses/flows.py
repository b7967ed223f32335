"""The flows that a program found in a capture, in a form in which those of two programs compare."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# An end of a flow is its packed address and its port; a flow is its protocol and its ends, the
# smaller one first.
End = tuple[bytes, int]
Key = tuple[int, End, End]

# Of a flow: packets, bytes on the wire, and the first and the last time in us since 1970 from its
# first end, then the same from its second end. A time without a packet is None.
Counts = list[int | None]
PACKETS, BYTES, FIRST, LAST = range(4)
WAY = 4


class Flows:
    """Flows, packet by packet. What a script over a packet reader keeps."""

    def __init__(self) -> None:
        self.found: dict[Key, list[int]] = {}

    def count(self, protocol: int, source: End, target: End, size: int, time: int) -> None:
        """Count a packet of `size` bytes on the wire; `time` is in us since 1970."""
        way = 0
        key = protocol, source, target
        if source > target:
            way = WAY
            key = protocol, target, source
        counts = self.found.get(key)
        if counts is None:
            counts = self.found[key] = [0] * (2 * WAY)
        if not counts[way + PACKETS]:
            counts[way + FIRST] = time
        counts[way + PACKETS] += 1
        counts[way + BYTES] += size
        counts[way + LAST] = time

    def rows(self) -> dict[Key, Counts]:
        """All flows."""
        return {key: known(counts) for key, counts in self.found.items()}


def known(counts: Sequence[int]) -> Counts:
    """The numbers of a flow, without the times of a direction that has no packets."""
    return [
        None if at % WAY >= FIRST and not counts[at - at % WAY + PACKETS] else number
        for at, number in enumerate(counts)
    ]


def of_records(records: Iterable[Sequence[int]]) -> dict[Key, Counts]:
    """The flows in records whose first 14 words are those of the bare loop. The records of
    `flow_stats` have the octets of IP behind the bytes, too: leave them out."""
    found = {}
    for record in records:
        words = [word & 0xFFFF_FFFF_FFFF_FFFF for word in record]
        rest = words[4]
        size = 4 if rest & 0xFF == 4 else 16
        ends = [
            ((words[at] << 64 | words[at + 1]).to_bytes(16, "big")[-size:], port & 0xFFFF)
            for at, port in ((0, rest >> 32), (2, rest >> 16))
        ]
        # Packets, bytes, first and last times, each of both directions.
        numbers = list(zip(*[iter(record[6:14])] * 2, strict=True))
        ways = [[pair[way] for pair in numbers] for way in (0, 1)]
        counts = [
            number // 1000 if at >= FIRST else number
            for way in ways
            for at, number in enumerate(way)
        ]
        # The halves of an address are signed in a record of ringline.
        key, counts = ordered(rest >> 8 & 0xFF, ends[0], ends[1], counts)
        found[key] = known(counts)
    return found


def ordered(protocol: int, a: End, b: End, counts: list[int]) -> tuple[Key, list[int]]:
    """The key of a flow whose numbers are from `a` first, and its numbers in the right order."""
    if a > b:
        return (protocol, b, a), counts[WAY:] + counts[:WAY]
    return (protocol, a, b), counts


def packed(address: str) -> bytes:
    """An address as bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@dataclass(frozen=True)
class Precision:
    """How exact the numbers of a program are.

    bytes: share by which bytes differ at most, since the program rounds them.
    time: us by which times differ at most.
    whole: the program gives times of both directions together, not of each.
    """

    bytes: float = 0.0
    time: int = 0
    whole: bool = False


def difference(
    ours: Mapping[Key, Counts], theirs: Mapping[Key, Counts], precision: Precision
) -> str:
    """The first difference between two results, as the end of a sentence; empty if they agree."""
    if len(ours) != len(theirs):
        return f"{len(theirs)} flows in place of {len(ours)}"
    for key, counts in ours.items():
        other = theirs.get(key)
        if other is None:
            return f"no flow {_text(key)}"
        mine = _together(counts) if precision.whole else counts
        for at, (number, found) in enumerate(zip(mine, other, strict=True)):
            if not _agree(at % WAY, number, found, precision):
                return f"{_text(key)} has {other} in place of {mine}"
    return ""


def _together(counts: Counts) -> Counts:
    """The same with the times of both directions in place of those of the first."""
    times = [
        choose(it for it in (counts[at], counts[WAY + at]) if it is not None)
        for choose, at in ((min, FIRST), (max, LAST))
    ]
    return [*counts[:FIRST], *times, *counts[WAY : WAY + FIRST], None, None]


def _agree(kind: int, number: int | None, found: int | None, precision: Precision) -> bool:
    if number is None or found is None:
        return number is found
    if kind == BYTES:
        return abs(number - found) <= precision.bytes * number
    return abs(number - found) <= (precision.time if kind >= FIRST else 0)


def _text(key: Key) -> str:
    ends = [
        f"{socket.inet_ntop(socket.AF_INET if len(at) == 4 else socket.AF_INET6, at)} port {port}"
        for at, port in key[1:]
    ]
    return f"{ends[0]} and {ends[1]}, protocol {key[0]}"
