"""`headers` for compiled code: the functions of headers/headers.h, line by line.

They are inlined into the packet function by LLVM, so what the function does not use is not
computed. The import of this module registers `headers` with numba.
"""

from __future__ import annotations

from typing import Any

from numba.extending import overload, register_jitable

from ringline.workers._workers import lib
from ringline.workers.headers import headers as view
from ringline.workers.headers.headers import ICMP, ICMPV6, TCP, UDP, Headers
from ringline.workers.tiers.jit import FRAME
from ringline.workers.tiers.jit_packets import load_field

INLINE = {"forceinline": True}

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
def extension_bytes(frame: Any, at: int, protocol: int) -> int:
    """As rl_extension_bytes."""
    units = load_field(frame, at + 1, 1)
    if protocol == FRAGMENT:
        return 8
    return 4 * (units + 2) if protocol == AUTHENTICATION else 8 * (units + 1)


@register_jitable(**INLINE)
def transport(frame: Any, version: int, protocol: int, at: int, limit: int) -> Any:
    """As rl_find_transport: (l4, payload, checksum_at, sport, dport)."""
    payload = checksum_at = sport = dport = 0
    if at >= limit or (version == 6 and protocol == NO_NEXT_HEADER):
        return 0, payload, checksum_at, sport, dport
    size = limit - at
    if protocol == TCP:
        if size >= 18:
            checksum_at = at + 16
        if size >= 20:
            tcp_bytes = 4 * (load_field(frame, at + 12, 1) >> 4)
            if 20 <= tcp_bytes <= size:
                payload = at + tcp_bytes
    elif protocol == UDP:
        if size >= 8:
            checksum_at = at + 6
            payload = at + 8
    elif protocol == ICMP or protocol == ICMPV6:
        if size >= 4 and (version == 4) == (protocol == ICMP):
            checksum_at = at + 2
    if size >= 4 and (protocol == TCP or protocol == UDP or protocol == SCTP):
        sport = load_field(frame, at, 2)
        dport = load_field(frame, at + 2, 2)
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
    return protocol, at, fragment


@overload(view.headers, jit_options=INLINE)
def _headers(frame: Any) -> Any:
    if frame != FRAME:
        return None

    def headers(frame: Any) -> Headers:
        length = len(frame)
        ethertype = l3 = version = end = protocol = fragment = 0
        src = dst = src_high = dst_high = 0
        l4 = payload = checksum_at = sport = dport = 0
        vlan = -1
        at = limit = 0
        if length >= 14:
            ethertype = load_field(frame, 12, 2)
            l3 = 14
            while (ethertype == TYPE_VLAN or ethertype == TYPE_SERVICE_VLAN) and l3 + 4 <= length:
                if vlan < 0:
                    vlan = load_field(frame, l3, 2) & 0xFFF
                ethertype = load_field(frame, l3 + 2, 2)
                l3 += 4
            if ethertype == TYPE_IPV4 and l3 + 20 <= length:
                first = load_field(frame, l3, 1)
                at = l3 + 4 * (first & 15)
                if first >> 4 == 4 and l3 + 20 <= at <= length:
                    version = 4
                    end = l3 + load_field(frame, l3 + 2, 2)
                    part = load_field(frame, l3 + 6, 2) & 0x3FFF
                    fragment = 1 if part else 0
                    protocol = load_field(frame, l3 + 9, 1)
                    src = load_field(frame, l3 + 12, 4)
                    dst = load_field(frame, l3 + 16, 4)
                    limit = min(end, length) if part & 0x1FFF == 0 else 0
            elif ethertype == TYPE_IPV6 and l3 + 40 <= length:
                if load_field(frame, l3, 1) >> 4 == 6:
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

    return headers
