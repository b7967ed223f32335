"""`headers` for compiled code: the functions of headers/headers.h, line by line.

They are inlined into the packet function by LLVM, so what the function does not use is not
computed. The import of this module registers `headers` with numba.
"""

from __future__ import annotations

from typing import Any

from numba import njit
from numba.extending import overload, register_jitable

from ringline.workers._workers import lib
from ringline.workers.headers import headers as view
from ringline.workers.headers.headers import ICMP, ICMPV6, TCP, UDP, Headers
from ringline.workers.tiers.jit import FRAME
from ringline.workers.tiers.jit_packets import load_field

INSIDE = {"no_cfunc_wrapper": True}  # C does not call it
INLINE = {"forceinline": True, **INSIDE}

SCTP: int = lib.RL_SCTP
TYPE_IPV4: int = lib.RL_TYPE_IPV4
TYPE_IPV6: int = lib.RL_TYPE_IPV6
TYPE_VLAN: int = lib.RL_TYPE_VLAN
TYPE_SERVICE_VLAN: int = lib.RL_TYPE_SERVICE_VLAN
HOP_BY_HOP: int = lib.RL_HOP_BY_HOP
ROUTING: int = lib.RL_ROUTING
FRAGMENT: int = lib.RL_FRAGMENT
AUTHENTICATION: int = lib.RL_AUTHENTICATION
NO_NEXT_HEADER: int = lib.RL_NO_NEXT_HEADER
DESTINATION_OPTIONS: int = lib.RL_DESTINATION_OPTIONS
MOBILITY: int = lib.RL_MOBILITY
HOST_IDENTITY: int = lib.RL_HOST_IDENTITY
SHIM6: int = lib.RL_SHIM6


# The first 8 bytes of an IPv4 header: version and header length; more fragments and the offset.
USUAL = 0x45 << 56
USUAL_BITS = (0xFF << 56 | 0x3FFF) - (1 << 64)


@register_jitable(**INLINE)
def is_extension(protocol: int) -> bool:
    """As rl_is_extension."""
    return (
        protocol == HOP_BY_HOP
        or protocol == ROUTING
        or protocol == FRAGMENT
        or protocol == AUTHENTICATION
        or protocol == DESTINATION_OPTIONS
        or protocol == MOBILITY
        or protocol == HOST_IDENTITY
        or protocol == SHIM6
    )


@register_jitable(**INLINE)
def extension_bytes(frame: Any, at: int, protocol: int) -> Any:
    """As rl_extension_bytes."""
    units = load_field(frame, at + 1, 1)
    if protocol == FRAGMENT:
        return 8
    return 4 * (units + 2) if protocol == AUTHENTICATION else 8 * (units + 1)


@register_jitable(**INLINE)
def tcp_payload(frame: Any, at: int, size: int) -> int:
    """The offset after the TCP header at `at`, 0 if it is not whole; `size` bytes are there."""
    if size < 20:
        return 0
    header = 4 * (load_field(frame, at + 12, 1) >> 4)
    return at + header if 20 <= header <= size else 0


@register_jitable(**INLINE)
def is_usual(frame: Any) -> Any:
    """Whether it is a whole IPv4 packet with 8 bytes of TCP or UDP, without a tag, options or
    fragments. Then the offsets are known, which takes half of the time."""
    if len(frame) < 42 or load_field(frame, 12, 2) != TYPE_IPV4:
        return False
    start = load_field(frame, 14, 8)
    protocol = load_field(frame, 23, 1)
    return (
        start & USUAL_BITS == USUAL
        and 28 <= (start >> 32) & 0xFFFF <= len(frame) - 14
        and (protocol == UDP or protocol == TCP)
    )


@register_jitable(**INLINE)
def usual(frame: Any) -> Headers:
    """The headers of a packet for which `is_usual`."""
    end = 14 + load_field(frame, 16, 2)
    protocol = load_field(frame, 23, 1)
    if protocol == UDP:
        payload, checksum_at = 42, 40
    else:
        payload, checksum_at = tcp_payload(frame, 34, end - 34), 50 if end >= 52 else 0
    addresses, ports = load_field(frame, 26, 8), load_field(frame, 34, 4)
    src, dst = (addresses >> 32) & 0xFFFF_FFFF, addresses & 0xFFFF_FFFF
    sport, dport = ports >> 16, ports & 0xFFFF
    return Headers(
        TYPE_IPV4,
        -1,
        4,
        14,
        34,
        payload,
        end,
        checksum_at,
        protocol,
        0,
        src,
        dst,
        0,
        0,
        sport,
        dport,
    )


@register_jitable(**INLINE)
def transport(frame: Any, version: int, protocol: int, at: int, limit: int) -> Any:
    """As rl_find_transport: (l4, payload, checksum_at, sport, dport)."""
    payload = checksum_at = sport = dport = 0
    size = limit - at
    if size <= 0:
        return 0, payload, checksum_at, sport, dport
    if protocol == TCP or protocol == UDP or protocol == SCTP:
        if size >= 4:
            sport = load_field(frame, at, 2)
            dport = load_field(frame, at + 2, 2)
        if protocol == UDP:
            if size >= 8:
                checksum_at = at + 6
                payload = at + 8
        elif protocol == TCP:
            if size >= 18:
                checksum_at = at + 16
            payload = tcp_payload(frame, at, size)
    elif size >= 4 and (
        (protocol == ICMP and version == 4) or (protocol == ICMPV6 and version == 6)
    ):
        checksum_at = at + 2
    return at, payload, checksum_at, sport, dport


@register_jitable(**INLINE)
def beyond_extensions(frame: Any, at: int, limit: int, protocol: int) -> Any:
    """Pass over the IPv6 extension headers from `at` on: (protocol, offset of the transport header,
    fragment). The offset is `limit` if there is no transport header."""
    fragment = 0
    while is_extension(protocol):
        if at + 8 > limit:
            return protocol, limit, fragment
        part = load_field(frame, at + 2, 2) & 0xFFF9 if protocol == FRAGMENT else 0
        size = extension_bytes(frame, at, protocol)
        protocol = load_field(frame, at, 1)
        at += size
        if part:
            fragment = 1
        if part & 0xFFF8:
            return protocol, limit, fragment
    return protocol, limit if protocol == NO_NEXT_HEADER else at, fragment


# A dispatcher, not an overload: numba compiles an overload again for each kind of caller.
@njit(**INLINE, no_cpython_wrapper=True)
def find_headers(frame: Any) -> Any:
    """The headers of a packet."""
    if is_usual(frame):
        return usual(frame)
    length = len(frame)
    ethertype = l3 = version = end = protocol = fragment = 0
    src = dst = src_high = dst_high = 0
    l4 = payload = checksum_at = sport = dport = 0
    vlan = -1
    at = limit = 0
    if length >= 14:
        ethertype = load_field(frame, 12, 2)
        l3 = 14
        while ethertype == TYPE_VLAN or ethertype == TYPE_SERVICE_VLAN:
            if l3 + 4 > length:
                break
            if vlan < 0:
                vlan = load_field(frame, l3, 2) & 0xFFF
            ethertype = load_field(frame, l3 + 2, 2)
            l3 += 4
        if ethertype == TYPE_IPV4 and l3 + 20 <= length:
            first = load_field(frame, l3, 1)
            at = l3 + 4 * (first & 15)
            if first == 0x45 or (first >> 4 == 4 and l3 + 20 <= at <= length):
                version = 4
                end = l3 + load_field(frame, l3 + 2, 2)
                part = load_field(frame, l3 + 6, 2) & 0x3FFF
                fragment = 1 if part else 0
                protocol = load_field(frame, l3 + 9, 1)
                src = load_field(frame, l3 + 12, 4)
                dst = load_field(frame, l3 + 16, 4)
                limit = min(end, length) if part & 0x1FFF == 0 else 0
        elif ethertype == TYPE_IPV6 and l3 + 40 <= length and load_field(frame, l3, 1) >> 4 == 6:
            version = 6
            end = l3 + 40 + load_field(frame, l3 + 4, 2)
            src_high = load_field(frame, l3 + 8, 8)
            src = load_field(frame, l3 + 16, 8)
            dst_high = load_field(frame, l3 + 24, 8)
            dst = load_field(frame, l3 + 32, 8)
            limit = min(end, length)
            protocol, at, fragment = beyond_extensions(
                frame, l3 + 40, limit, load_field(frame, l3 + 6, 1)
            )
        l4, payload, checksum_at, sport, dport = transport(frame, version, protocol, at, limit)
    return Headers(
        ethertype,
        vlan,
        version,
        l3,
        l4,
        payload,
        end,
        checksum_at,
        protocol,
        fragment,
        src,
        dst,
        src_high,
        dst_high,
        sport,
        dport,
    )


@overload(view.headers, jit_options=INLINE)
def _headers(frame: Any) -> Any:
    if frame != FRAME:
        return None

    def headers(frame: Any) -> Any:
        return find_headers(frame)

    return headers
