"""Packet functions that `ringline bench plugin` measures. Each has a bare loop in C that does the
same (pipeline/bench/limits.c)."""

from __future__ import annotations

from ringline.workers.api import (
    DROP,
    field,
    headers,
    packet_function,
    set_field,
    update_checksum,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIFE = 22  # offset of the time to live of an IPv4 header after an Ethernet header without a tag
CHECKSUM = 24


@packet_function
def nothing(frame: Any, meta: Any) -> int:
    """What the functions below do beside their work."""
    if len(frame) < 34:
        return DROP
    port: int = meta.port
    return port


@packet_function
def header_view(frame: Any, meta: Any) -> int:
    """Find the headers, and drop the packet if addresses, ports and protocol cancel out."""
    h = headers(frame)
    if h.src ^ h.dst ^ h.sport ^ h.dport ^ h.protocol == 0:
        return DROP
    port: int = meta.port
    return port


@packet_function
def checksum_update(frame: Any, meta: Any) -> int:
    """Count the time to live down, and update the checksum of the IPv4 header."""
    if len(frame) < 34:
        return DROP
    before = field(frame, LIFE, 2)
    after = (before - 0x100) & 0xFFFF
    set_field(frame, LIFE, 2, after)
    update_checksum(frame, CHECKSUM, before, after)
    port: int = meta.port
    return port
