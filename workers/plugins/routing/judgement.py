"""What to do with a packet: forward it, answer it, or drop it for a reason.

A judgement is (action, reason, interface, high, low, icmp, extra): `interface` and the address in
`high` and `low` are where to send a packet, `icmp` and `extra` are the type << 8 | code of an error
and the 32 bits behind its checksum. `reason` is the place in REASONS, also when no error may be
sent. `extra` of a packet to forward is the row of `hops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ringline.workers.api import ICMP, ICMPV6, TCP, UDP, checksum, field
from ringline.workers.plugins.helper import helper
from ringline.workers.plugins.routing.answers import (
    ARP_BYTES,
    ARP_HEAD,
    GROUP,
    ND_HOPS,
    OPTIONS,
    SOLICITATION,
    SOURCE_OPTION,
    TARGET,
    TARGET_OPTION,
    echo4,
    echo6,
    link_address,
    sum6,
    write_arp,
)
from ringline.workers.plugins.routing.neighbours import MAPPED, find, learn
from ringline.workers.plugins.routing.routes import (
    BROADCAST,
    DIRECT,
    HIGH,
    INTERFACE,
    KIND,
    LINK_LOCAL,
    LOW,
    MARTIAN,
    MULTICAST,
    OWN,
)

DISCARD, REPLY, ADVERTISE, ERROR, FORWARD, REQUEST = range(6)

# The names of the drop reasons. MARTIAN to BROADCAST are kinds of a hop, too.
REASONS = (
    "bad_frame",
    "no_interface",
    "other_host",
    "martian",
    "link_local",
    "multicast",
    "broadcast",
    "not_ip",
    "bad_header",
    "no_route",
    "ttl_expired",
    "too_big",
    "unresolved",
    "no_service",
    "consumed",
)
BAD_FRAME, NO_INTERFACE, OTHER_HOST = 0, 1, 2
NOT_IP, BAD_HEADER, NO_ROUTE, TTL_EXPIRED, TOO_BIG, UNRESOLVED, NO_SERVICE, CONSUMED = range(7, 15)

# What the router says, by the place in the counter `said`.
SAID = ("arp_reply", "arp_request", "advertisement", "solicitation", "echo_reply", "icmp_error")
ARP_REPLY, ARP_REQUEST, ADVERTISED, SOLICITED, ECHO_REPLY, ICMP_ERROR = range(6)

# The columns of `interfaces`.
PORT, TAG, MAC, MTU, SOURCE4, SOURCE6_HIGH, SOURCE6_LOW, LOCAL_LOW = range(8)
FE80 = (0xFE80 << 48) - (1 << 64)  # the high half of a link-local address, with its sign

# ICMP errors, type << 8 | code: RFC 792, RFC 4443.
NET4, HOST4, PROTOCOL4, PORT4, NEEDS4, EXPIRED4 = 0x300, 0x301, 0x302, 0x303, 0x304, 0xB00
NET6, HOST6, PORT6, BIG6, EXPIRED6 = 0x100, 0x103, 0x104, 0x200, 0x300


@helper
def hear(state: Any, here: Any, high: Any, low: Any, mac: Any, now: Any) -> None:
    """Note the MAC address of a neighbour."""
    if mac <= 0 or mac & GROUP:
        return
    if not learn(state.mine, state.lifetime, here, high, low, mac, now):
        state.neighbours_full[0] += 1


@helper
def judge_arp(frame: Any, at: Any, state: Any, here: Any, now: Any) -> Any:
    if len(frame) < at + ARP_BYTES or field(frame, at, 8) & ~3 != ARP_HEAD:
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    sender_mac, sender = field(frame, at + 8, 6), field(frame, at + 14, 4)
    target = field(frame, at + 24, 4)
    zero = np.int64(0)  # numba compiles a function once more for a constant
    there = state.hops[max(state.routes.find4(target), 0)]
    for_us = there[KIND] == OWN and there[INTERFACE] == here
    whence = state.hops[max(state.routes.find4(sender), 0)]
    if whence[KIND] == DIRECT and whence[INTERFACE] == here:
        known = False
        if not for_us:  # RFC 826: an address that is known is updated by every ARP frame
            table = state.neighbours
            known = find(table, state.lifetime, here, zero, MAPPED | sender, now)[0] >= 0
        if for_us or known:
            hear(state, here, zero, MAPPED | sender, sender_mac, now)
    if not for_us or field(frame, at + 6, 2) != 1:
        return DISCARD, CONSUMED, 0, 0, 0, 0, 0
    write_arp(frame, at, 2, state.interfaces[here, MAC], target, sender_mac, sender)
    state.said[ARP_REPLY] += 1
    return REPLY, CONSUMED, 0, 0, 0, 0, 0


@helper
def judge4(frame: Any, h: Any, state: Any, here: Any, group: Any, checked: Any) -> Any:
    if h.version != 4 or h.end > len(frame):
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    l3, l4 = h.l3, h.l4
    header_end = l3 + 4 * (field(frame, l3, 1) & 15)
    if h.end < header_end:  # RFC 1812 5.2.2
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    if not checked and checksum(frame, l3, header_end) != 0:
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    top = h.src >> 24
    if top == 0 or top == 127 or top >= 224:  # noqa: PLR1714  # numba
        return DISCARD, MARTIAN, 0, 0, 0, 0, 0
    if h.src >> 16 == 0xA9FE:
        return DISCARD, LINK_LOCAL, 0, 0, 0, 0, 0
    row = state.routes.find4(h.dst)
    if row < 0:
        return ERROR, NO_ROUTE, 0, 0, 0, NET4, 0
    hop = state.hops[row]
    kind = hop[KIND]
    if kind >= MARTIAN:
        return DISCARD, kind, 0, 0, 0, 0, 0
    if group:
        return DISCARD, BROADCAST, 0, 0, 0, 0, 0
    if kind == OWN:
        if h.protocol == ICMP or h.fragment:
            if h.fragment or l4 == 0 or h.end < l4 + 8 or field(frame, l4, 1) != 8:
                return DISCARD, CONSUMED, 0, 0, 0, 0, 0
            echo4(frame, l3, l4)
            state.said[ECHO_REPLY] += 1
            return REPLY, CONSUMED, 0, 0, 0, 0, 0
        known = h.protocol == UDP or h.protocol == TCP  # noqa: PLR1714  # numba
        return ERROR, NO_SERVICE, 0, 0, 0, PORT4 if known else PROTOCOL4, 0
    if field(frame, l3 + 8, 1) < 2:
        return ERROR, TTL_EXPIRED, 0, 0, 0, EXPIRED4, 0
    out = hop[INTERFACE]
    mtu = state.interfaces[out, MTU]
    if h.end - l3 > mtu:
        return ERROR, TOO_BIG, 0, 0, 0, NEEDS4, mtu
    low = MAPPED | (h.dst if kind == DIRECT else hop[LOW])
    return FORWARD, UNRESOLVED, out, 0, low, HOST4, row


@helper
def judge6(frame: Any, h: Any, state: Any, here: Any, group: Any, now: Any) -> Any:
    if h.version != 6 or h.end > len(frame):
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    l3, l4 = h.l3, h.l4
    row = state.routes.find6(h.dst_high, h.dst)
    kind = state.hops[row, KIND] if row >= 0 else DIRECT
    local = kind == OWN
    if kind == LINK_LOCAL:
        local = h.dst_high == FE80 and h.dst == state.interfaces[here, LOCAL_LOW]
    message = 0
    if h.protocol == ICMPV6 and l4 and h.end >= l4 + 8 and not h.fragment:
        message = field(frame, l4, 1)
    if 133 <= message <= 137 and l4 == l3 + 40 and (local or kind == MULTICAST):
        return judge_nd(frame, h, state, here, message, now)
    if (h.src_high == 0 and 0 <= h.src <= 1) or h.src_high >> 56 == -1:
        return DISCARD, MARTIAN, 0, 0, 0, 0, 0
    if kind == MARTIAN:
        return DISCARD, kind, 0, 0, 0, 0, 0
    if kind == MULTICAST or (kind == LINK_LOCAL and not local):
        return DISCARD, kind, 0, 0, 0, 0, 0
    if group:
        return DISCARD, BROADCAST, 0, 0, 0, 0, 0
    if local:
        if message == 128:
            echo6(frame, l3, l4)
            state.said[ECHO_REPLY] += 1
            return REPLY, CONSUMED, 0, 0, 0, 0, 0
        if h.protocol == UDP or h.protocol == TCP:  # noqa: PLR1714  # numba
            return ERROR, NO_SERVICE, 0, 0, 0, PORT6, 0
        return DISCARD, CONSUMED, 0, 0, 0, 0, 0
    if h.src_high >> 54 == FE80 >> 54:
        return DISCARD, LINK_LOCAL, 0, 0, 0, 0, 0
    if row < 0:
        return ERROR, NO_ROUTE, 0, 0, 0, NET6, 0
    if field(frame, l3 + 7, 1) < 2:
        return ERROR, TTL_EXPIRED, 0, 0, 0, EXPIRED6, 0
    hop = state.hops[row]
    out = hop[INTERFACE]
    mtu = state.interfaces[out, MTU]
    if h.end - l3 > mtu:
        return ERROR, TOO_BIG, 0, 0, 0, BIG6, mtu
    if kind == DIRECT:
        return FORWARD, UNRESOLVED, out, h.dst_high, h.dst, HOST6, row
    return FORWARD, UNRESOLVED, out, hop[HIGH], hop[LOW], HOST6, row


@helper
def judge_nd(frame: Any, h: Any, state: Any, here: Any, message: Any, now: Any) -> Any:
    """A message of neighbour discovery (RFC 4861 7.1)."""
    l3, l4 = h.l3, h.l4
    if field(frame, l3 + 7, 1) != ND_HOPS or field(frame, l4 + 1, 1) != 0:
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    if checksum(frame, l4, h.end, sum6(frame, l3, h.end - l4)) != 0:
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    if message != SOLICITATION and message != SOLICITATION + 1:
        return DISCARD, CONSUMED, 0, 0, 0, 0, 0
    if h.end < l4 + OPTIONS:
        return DISCARD, BAD_HEADER, 0, 0, 0, 0, 0
    high, low = field(frame, l4 + TARGET, 8), field(frame, l4 + TARGET + 8, 8)
    if message != SOLICITATION:
        if is_on_link(state, here, high, low):
            hear(state, here, high, low, link_address(frame, l4, h.end, TARGET_OPTION), now)
        return DISCARD, CONSUMED, 0, 0, 0, 0, 0
    mine = high == FE80 and low == state.interfaces[here, LOCAL_LOW]
    row = state.routes.find6(high, low)
    if row >= 0 and state.hops[row, KIND] == OWN and state.hops[row, INTERFACE] == here:
        mine = True
    if not mine:
        return DISCARD, CONSUMED, 0, 0, 0, 0, 0
    if is_on_link(state, here, h.src_high, h.src):
        mac = link_address(frame, l4, h.end, SOURCE_OPTION)
        hear(state, here, h.src_high, h.src, mac, now)
    return ADVERTISE, CONSUMED, here, high, low, 0, 0


@helper
def is_on_link(state: Any, here: Any, high: Any, low: Any) -> Any:
    """Whether an IPv6 address belongs to a station on this network."""
    row = state.routes.find6(high, low)
    if row < 0:
        return False
    if state.hops[row, KIND] == LINK_LOCAL:
        return True
    return state.hops[row, KIND] == DIRECT and state.hops[row, INTERFACE] == here


@helper
def may_complain(frame: Any, h: Any, group: Any) -> Any:
    """Whether an ICMP error about this packet is allowed (RFC 1812 4.3.2.7, RFC 4443 2.4)."""
    if group or (h.fragment and h.l4 == 0):
        return False
    if h.protocol == ICMP and h.version == 4:
        if h.l4 == 0:
            return False
        kind = field(frame, h.l4, 1)
        return kind == 0 or kind == 8 or kind > 12  # noqa: PLR1714  # numba
    if h.protocol == ICMPV6 and h.version == 6:
        return h.l4 > 0 and field(frame, h.l4, 1) >= 128
    return True
