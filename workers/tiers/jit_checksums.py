"""`checksum`, `update_checksum` and `fix_checksums` for compiled code: the functions of
headers/checksums.h, line by line.

The import of this module registers them with numba.
"""

from __future__ import annotations

from typing import Any

from numba import int64, types
from numba.extending import overload, register_jitable

from ringline.workers.headers import checksums
from ringline.workers.headers.headers import ICMP, TCP, UDP, headers
from ringline.workers.packets import L3_OK, L4_OK
from ringline.workers.tiers.jit import FRAME
from ringline.workers.tiers.jit_headers import INLINE, INSIDE, ROUTING, extension_bytes
from ringline.workers.tiers.jit_packets import load_field, store_field


@register_jitable(**INLINE)
def halves(number: int) -> int:
    """The sum of the two 32-bit halves of a 64-bit number, taken as unsigned."""
    return ((number >> 32) & 0xFFFF_FFFF) + (number & 0xFFFF_FFFF)


@register_jitable(**INLINE)
def fold(total: int) -> int:
    """As rl_fold. No sum is beyond 63 bits: LLVM may assume that signed sums do not overflow."""
    half: int = halves(halves(total))
    return ((half + (half << 16) + (half >> 16)) & 0xFFFF_FFFF) >> 16


@register_jitable(**INSIDE)
def add_words(total: int, frame: Any, at: int, end: int) -> int:
    """As rl_add_words, for the bytes `at` to `end` of the frame."""
    for _ in range((end - at) // 4):
        total += load_field(frame, at, 4)
        at += 4
    if (end - at) & 2:
        total += load_field(frame, at, 2)
        at += 2
    if (end - at) & 1:
        total += load_field(frame, at, 1) << 8
    return total


@overload(checksums.checksum, jit_options=INSIDE)
def _checksum(frame: Any, start: Any = 0, end: Any = None, initial: Any = 0) -> Any:
    if frame != FRAME:
        return None
    to_the_end = end is None or isinstance(end, types.NoneType | types.Omitted)

    def checksum(frame: Any, start: Any = 0, end: Any = None, initial: Any = 0) -> Any:
        first = int64(start)
        stop = len(frame) if to_the_end else int64(end)
        if not 0 <= first <= stop <= len(frame):
            raise IndexError("the range is not within the frame")
        return fold(add_words(fold(int64(initial)), frame, first, stop)) ^ 0xFFFF

    return checksum


@register_jitable(**INSIDE)
def is_udp_checksum(frame: Any, offset: int) -> bool:
    """As rl_is_udp_checksum."""
    found = headers(frame)
    return found.protocol == UDP and found.checksum_at == offset


@overload(checksums.update_checksum, jit_options=INLINE)
def _update_checksum(frame: Any, offset: Any, old: Any, new: Any) -> Any:
    if frame != FRAME:
        return None

    def update_checksum(frame: Any, offset: Any, old: Any, new: Any) -> None:
        at = int64(offset)
        if at < 0 or at > len(frame) - 2:
            raise IndexError("the checksum is not within the frame")
        before = load_field(frame, at, 2)
        after = fold((before ^ 0xFFFF) + halves(~int64(old)) + halves(int64(new))) ^ 0xFFFF
        # Only a 0 differs between UDP and others, so the headers are rarely looked at.
        if (before == 0 or after == 0) and is_udp_checksum(frame, at):
            after = 0 if before == 0 else 0xFFFF
        store_field(frame, at, 2, after)

    return update_checksum


@register_jitable(**INSIDE)
def final_destination_ipv6(frame: Any, l3: int, l4: int) -> int:
    """As rl_final_destination_ipv6."""
    protocol = load_field(frame, l3 + 6, 1)
    at = l3 + 40
    destination = l3 + 24
    while at < l4:
        size = extension_bytes(frame, at, protocol)
        if protocol == ROUTING and load_field(frame, at + 3, 1):
            kind = load_field(frame, at + 2, 1)
            if size < 24 or (kind != 4 and size % 16 != 8):
                return 0
            if kind == 0 or kind == 2:
                destination = at + size - 16
            elif kind == 4:
                destination = at + 8
            else:
                return 0
        protocol = load_field(frame, at, 1)
        at += size
    return destination


@register_jitable(**INSIDE)
def final_destination_ipv4(frame: Any, l3: int) -> int:
    """As rl_final_destination_ipv4."""
    at = l3 + 20
    end = l3 + 4 * (load_field(frame, l3, 1) & 15)
    while at + 3 <= end:
        kind = load_field(frame, at, 1)
        if kind == 0:
            break
        size = 1 if kind == 1 else load_field(frame, at + 1, 1)
        if (kind == 131 or kind == 137) and load_field(frame, at + 2, 1) <= size:
            return 0
        if size == 0:
            break
        at += size
    return l3 + 16


@register_jitable(**INSIDE)
def fix_transport(frame: Any, found: Any) -> bool:
    """As rl_fix_transport."""
    if found.fragment or not found.checksum_at or found.end > len(frame):
        return False
    at, size, total = found.l4, found.end - found.l4, 0
    if found.protocol == TCP and size < 20:
        return False
    if found.protocol == UDP:
        udp_bytes = load_field(frame, at + 4, 2)
        if udp_bytes < 8 or udp_bytes > size:
            return False
        if found.version == 4 and load_field(frame, found.checksum_at, 2) == 0:
            return False
        size = udp_bytes
    if found.protocol != ICMP:
        if found.version == 4:
            destination, source, width = final_destination_ipv4(frame, found.l3), 12, 4
        else:
            destination = final_destination_ipv6(frame, found.l3, at)
            source, width = 8, 16
        if destination == 0:
            return False
        source += found.l3
        total = add_words(found.protocol + size, frame, source, source + width)
        total = add_words(total, frame, destination, destination + width)
    store_field(frame, found.checksum_at, 2, 0)
    value = fold(add_words(total, frame, at, at + size)) ^ 0xFFFF
    if found.protocol == UDP and value == 0:
        value = 0xFFFF
    store_field(frame, found.checksum_at, 2, value)
    return True


@overload(checksums.fix_checksums, jit_options=INSIDE)
def _fix_checksums(frame: Any) -> Any:
    if frame != FRAME:
        return None

    def fix_checksums(frame: Any) -> int:
        found = headers(frame)
        flags = 0
        if found.version == 4:
            l3 = found.l3
            store_field(frame, l3 + 10, 2, 0)
            end = l3 + 4 * (load_field(frame, l3, 1) & 15)
            store_field(frame, l3 + 10, 2, fold(add_words(0, frame, l3, end)) ^ 0xFFFF)
            flags |= L3_OK
        if fix_transport(frame, found):
            flags |= L4_OK
        return flags

    return fix_checksums
