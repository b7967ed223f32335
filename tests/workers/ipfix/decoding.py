"""Reads messages of IPFIX by their templates alone, as RFC 7011 says, without ringline's code."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple


class Record(NamedTuple):
    """A data record: its template, and the bytes of its fields by information element."""

    template: int
    fields: dict[int, int]


class Stream:
    """Reads the messages of one stream in their order; an error of the stream raises."""

    def __init__(self, sequence: int = 0) -> None:
        self.sequence = sequence
        self.templates: dict[int, list[tuple[int, int]]] = {}
        self.domains: set[int] = set()
        self.times: list[int] = []
        self.messages_with_templates: list[int] = []
        self.count = 0

    def read(self, message: bytes) -> list[Record]:
        """The data records of a message."""
        version, length, time, sequence, domain = struct.unpack_from(">HHIII", message)
        assert version == 10
        assert length == len(message)
        assert sequence == self.sequence & 0xFFFFFFFF
        self.domains.add(domain)
        self.times.append(time)
        found: list[Record] = []
        at = 16
        while at < length:
            number, size = struct.unpack_from(">HH", message, at)
            body = message[at + 4 : at + size]
            assert size >= 4
            assert at + size <= length
            at += size
            if number in (2, 3):
                self.messages_with_templates.append(self.count)
                self._learn(body, 0 if number == 2 else 1)
            else:
                assert number >= 256
                found += self._records(number, body)
        self.sequence += len(found)
        self.count += 1
        return found

    def _learn(self, body: bytes, scopes: int) -> None:
        while body:
            number, count = struct.unpack_from(">HH", body)
            start = 4
            if scopes:
                assert struct.unpack_from(">H", body, 4) == (scopes,)
                start = 6
            stop = start + 4 * count
            fields = [struct.unpack_from(">HH", body, at) for at in range(start, stop, 4)]
            assert all(element < 0x8000 for element, _ in fields)
            assert self.templates.setdefault(number, fields) == fields
            body = body[stop:]

    def _records(self, number: int, body: bytes) -> Iterable[Record]:
        fields = self.templates[number]
        size = sum(width for _, width in fields)
        assert len(body) % size == 0
        for start in range(0, len(body), size):
            found, at = {}, start
            for element, width in fields:
                found[element] = int.from_bytes(body[at : at + width], "big")
                at += width
            yield Record(number, found)


def messages_of(data: bytes) -> list[bytes]:
    """The messages of a file (RFC 5655)."""
    found = []
    while data:
        (length,) = struct.unpack_from(">H", data, 2)
        found.append(data[:length])
        data = data[length:]
    return found
