"""The headers of a frame, found once: Ethernet, VLAN tags, IPv4, IPv6, and the transport header.

In a compiled function `headers` is compiled with it (tiers/jit_headers.py), and fields that the
function does not use cost nothing. Elsewhere it calls the C of headers.h, which plugins in C call
as `rl_headers`.

Guarantees (tests in tests/workers/headers/test_headers.py):
 - compiled code, plain Python and C find the same (test_compiled_and_plain_find_the_same)
 - no bytes beyond the end of the frame are read (test_a_frame_that_ends_early_is_not_read_beyond)
"""

from __future__ import annotations

from collections import namedtuple

from ringline.workers._workers import ffi, lib

# IP protocol numbers (IANA).
ICMP: int = lib.RL_ICMP
TCP: int = lib.RL_TCP
UDP: int = lib.RL_UDP
ICMPV6: int = lib.RL_ICMPV6


_FIELDS = 16
_FIELDS_TYPE = ffi.typeof(f"int64_t[{_FIELDS}]")


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    NamedTuple = object


def _named_tuple(fields: type[Headers]) -> type[Headers]:
    """The class as typing.NamedTuple makes it; the import of `typing` would take 4 ms."""
    make: Any = namedtuple  # mypy knows it only with literals
    made: Any = make(fields.__name__, fields.__annotations__)
    made.__doc__, made.__module__ = fields.__doc__, fields.__module__
    found: type[Headers] = made
    return found


@_named_tuple
class Headers(NamedTuple):
    """What `headers` found in a frame. Offsets count from the first byte of the frame.

    | field       |                                                                      |
    |-------------|----------------------------------------------------------------------|
    | ethertype   | EtherType after all VLAN tags; below 1536 it is a length (IEEE 802.3); |
    |             | 0 if the frame has less than 14 bytes                                |
    | vlan        | VLAN ID, 0 to 4095, of the first tag in the frame; -1 without a tag. |
    |             | A tag that the card removed is in `meta.vlan_tci`                    |
    | version     | 4 or 6; 0 if it is not IP, or the IP header is not whole             |
    | l3          | offset of the header after the tags                                  |
    | l4          | offset of the transport header; 0 if it is not in the frame, as in   |
    |             | all fragments but the first                                          |
    | payload     | offset of the data of TCP and UDP; 0 for other protocols, or if the  |
    |             | TCP or UDP header is not whole                                       |
    | end         | offset of the end of the packet by its IP header; 0 without IP. The  |
    |             | frame may be longer (padding) or shorter (cut off)                   |
    | checksum_at | offset of the checksum of TCP, UDP, ICMP or ICMPv6; 0 if there is none |
    | protocol    | protocol of the transport header, after IPv6 extension headers; 0    |
    |             | without IP. For an extension header that is cut off, its own number  |
    | fragment    | 1 if it is a part of a fragmented packet, the first part too; else 0 |
    | src, dst    | addresses: of IPv4 the whole, of IPv6 the low 64 bits, as a signed   |
    |             | number, which `field(frame, offset, 8)` returns, too                 |
    | src_high,   | the high 64 bits of IPv6 addresses, as a signed number; 0 for IPv4   |
    | dst_high    |                                                                      |
    | sport, dport | ports of TCP, UDP and SCTP, 0 without                               |

    Tags of IEEE 802.1Q (0x8100) and 802.1ad (0x88A8) are passed over. So are the IPv6 extension
    headers hop-by-hop options, routing, fragment, authentication, destination options, mobility,
    host identity and shim6. ESP and "no next header" are not: ESP hides what follows.
    """

    ethertype: int
    vlan: int
    version: int
    l3: int
    l4: int
    payload: int
    end: int
    checksum_at: int
    protocol: int
    fragment: int
    src: int
    dst: int
    src_high: int
    dst_high: int
    sport: int
    dport: int


def headers(frame: Any) -> Headers:
    """Find the headers of `frame`: the argument of a packet function, `packet.data`, or bytes.

        h = headers(frame)
        if h.protocol == UDP and h.dport == 53:

    Raises nothing: what is missing in the frame is missing in the result.
    """
    data = ffi.from_buffer("uint8_t[]", frame)
    fields = ffi.new(_FIELDS_TYPE)
    lib.rl_call_headers(data, len(data), fields)
    return Headers._make(ffi.unpack(fields, _FIELDS))
