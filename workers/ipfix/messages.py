"""Messages of IPFIX (RFC 7011): templates, and data sets made of whole arrays of flows.

A flow is a row of an int64 array; the constants below name its columns. One row is one direction,
since collectors that do not know RFC 5103 could not read both from one record.

The information elements are those of RFC 7012 and of IANA's registry. Times have milliseconds,
which every collector keeps. `octetDeltaCount` counts the octets of IP packets, without Ethernet.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# The columns of a flow: the halves of both addresses (of IPv4 the low half), the ports with
# protocol and IP version as in flow_key.py, IP packets and their octets, nanoseconds since 1970 of
# the first and the last packet, the flags of TCP, and why the record ends here.
SOURCE, TARGET, REST = 0, 2, 4
PACKETS, OCTETS, FIRST, LAST, FLAGS, REASON = range(5, 11)
COLUMNS = 11

# flowEndReason (RFC 5102, section 5.11.3)
IDLE, ACTIVE, FORCED, NO_ROOM = 1, 2, 4, 5

VERSION = 10
HEADER = struct.Struct(">HHIII")  # version, length, export time, sequence number, domain
SET = struct.Struct(">HH")  # number, length
MESSAGE_BYTES = 1400  # with the headers of IP and UDP it fits into a frame of 1500 bytes

_TEMPLATES, _OPTIONS = 2, 3  # numbers of the sets that describe others (section 3.3.2)

# name: number of the information element, and its type in a record
_FLOW = {
    "flowStartMilliseconds": (152, ">u8"),
    "flowEndMilliseconds": (153, ">u8"),
    "octetDeltaCount": (1, ">u8"),
    "packetDeltaCount": (2, ">u8"),
    "sourceTransportPort": (7, ">u2"),
    "destinationTransportPort": (11, ">u2"),
    "tcpControlBits": (6, ">u2"),
    "protocolIdentifier": (4, "u1"),
    "flowEndReason": (136, "u1"),
}
_FLOW4 = {"sourceIPv4Address": (8, ">u4"), "destinationIPv4Address": (12, ">u4")} | _FLOW
_FLOW6 = {"sourceIPv6Address": (27, "V16"), "destinationIPv6Address": (28, "V16")} | _FLOW
# Sections 4.1 to 4.3; the first field is the scope.
_METERING = {
    "observationDomainId": (149, ">u4"),
    "exportedMessageTotalCount": (41, ">u8"),
    "exportedOctetTotalCount": (40, ">u8"),
    "exportedFlowRecordTotalCount": (42, ">u8"),
    "ignoredPacketTotalCount": (164, ">u8"),
}
_EXPORTING = {
    "exportingProcessId": (144, ">u4"),
    "notSentFlowTotalCount": (166, ">u8"),
    "notSentPacketTotalCount": (167, ">u8"),
    "notSentOctetTotalCount": (168, ">u8"),
}

IPV4, IPV6, METERING, EXPORTING = 256, 257, 258, 259
_KINDS = {IPV4: _FLOW4, IPV6: _FLOW6, METERING: _METERING, EXPORTING: _EXPORTING}
TYPES = {
    number: np.dtype([(name, kind) for name, (_, kind) in fields.items()])
    for number, fields in _KINDS.items()
}


def message(sets: bytes, *, seconds: int, sequence: int, domain: int) -> bytes:
    """A message that holds `sets`. `seconds` is the time of export since 1970; `sequence` is the
    number of data records that the stream had before (section 3.1)."""
    length = HEADER.size + len(sets)
    head = HEADER.pack(VERSION, length, seconds & 0xFFFFFFFF, sequence & 0xFFFFFFFF, domain)
    return head + sets


def data_set(number: int, records: bytes) -> bytes:
    """A set of data records of the template `number`."""
    return SET.pack(number, SET.size + len(records)) + records


def templates() -> bytes:
    """The sets that describe all records: two templates for flows, two for statistics."""
    flows = b"".join(_template(number) for number in (IPV4, IPV6))
    options = b"".join(_template(number, scopes=1) for number in (METERING, EXPORTING))
    return data_set(_TEMPLATES, flows) + data_set(_OPTIONS, options)


def _template(number: int, scopes: int = 0) -> bytes:
    fields = _KINDS[number]
    head = struct.pack(">HH", number, len(fields))
    if scopes:
        head += struct.pack(">H", scopes)
    elements = ((element, np.dtype(kind).itemsize) for element, kind in fields.values())
    return head + b"".join(struct.pack(">HH", *element) for element in elements)


def statistics(domain: int, process: int, metering: Sequence[int], lost: Sequence[int]) -> bytes:
    """The sets of the two records of statistics, in the order of their elements: `metering` are the
    messages, octets and flows that were exported and the packets that were ignored, `lost` the
    flows, packets and octets that were not sent."""
    made = b""
    for number, scope, values in ((METERING, domain, metering), (EXPORTING, process, lost)):
        record = np.array([(scope, *(int(value) for value in values))], TYPES[number])
        made += data_set(number, record.tobytes())
    return made


def records(flows: NDArray[np.int64], number: int) -> NDArray[Any]:
    """The data records of rows that are all of the IP version of the template `number`."""
    made = np.empty(len(flows), TYPES[number])
    rest = flows[:, REST]
    made["flowStartMilliseconds"] = flows[:, FIRST] // 1_000_000
    made["flowEndMilliseconds"] = flows[:, LAST] // 1_000_000
    made["octetDeltaCount"] = flows[:, OCTETS]
    made["packetDeltaCount"] = flows[:, PACKETS]
    made["sourceTransportPort"] = rest >> 32 & 0xFFFF
    made["destinationTransportPort"] = rest >> 16 & 0xFFFF
    made["tcpControlBits"] = flows[:, FLAGS] & 0xFFFF
    made["protocolIdentifier"] = rest >> 8 & 0xFF
    made["flowEndReason"] = flows[:, REASON]
    if number == IPV4:
        made["sourceIPv4Address"] = flows[:, SOURCE + 1]
        made["destinationIPv4Address"] = flows[:, TARGET + 1]
    else:
        for name, at in (("sourceIPv6Address", SOURCE), ("destinationIPv6Address", TARGET)):
            halves = np.ascontiguousarray(flows[:, at : at + 2].astype(">i8"))
            made[name] = halves.view("V16")[:, 0]
    return made


def flow_sets(
    flows: NDArray[np.int64], message_bytes: int
) -> Iterator[tuple[bytes, NDArray[np.int64]]]:
    """The flows in their order as sets, each for one message of at most `message_bytes`, with the
    rows that are in it. In a message, those of IPv4 come first."""
    is_ipv4 = flows[:, REST] & 0xFF == 4
    data, ends, sizes = {}, {}, {}
    for number, chosen in ((IPV4, is_ipv4), (IPV6, ~is_ipv4)):
        data[number] = records(flows[chosen], number).tobytes()
        sizes[number] = TYPES[number].itemsize
        ends[number] = np.concatenate([[0], np.cumsum(chosen)]) * sizes[number]
    room = message_bytes - HEADER.size - 2 * SET.size
    total = ends[IPV4] + ends[IPV6]
    start = 0
    while start < len(flows):
        stop = int(np.searchsorted(total, total[start] + room, "right")) - 1
        made = b""
        for number, end in ends.items():
            if end[stop] > end[start]:
                made += data_set(number, data[number][end[start] : end[stop]])
        yield made, flows[start:stop]
        start = stop
