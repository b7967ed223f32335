"""A packet of a capture, as the readers of pcap and pcapng find it."""

from __future__ import annotations

from typing import NamedTuple


class Packet(NamedTuple):
    """One packet.

    at: where its header or block begins in the content of the file, in bytes, for messages.
    nanoseconds: its time, since 1970; 0 if it has none.
    original: its bytes on the wire. The last `fcs` of them are a frame check sequence.
    link_type: number of its link layer (tcpdump.org/linktypes.html).
    byte_order: of the file, "<" or ">".
    data: its bytes in the file.
    """

    at: int
    nanoseconds: int
    original: int
    link_type: int
    fcs: int
    byte_order: str
    data: memoryview


class Frame(NamedTuple):
    """An Ethernet frame of a capture.

    number: of its packet in the file, from 1, as other programs show it.
    nanoseconds: its time, since 1970; 0 if the file has none.
    original: its bytes on the wire, at least as many as `data` has.
    data: its bytes in the file, without a frame check sequence.
    """

    number: int
    nanoseconds: int
    original: int
    data: bytes | memoryview
