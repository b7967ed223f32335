"""`xdp:NAME`, a kind of port: see `Kind` in ports/attachment.py.

Each process imports its own half only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.xdp.port import XdpPort
    from ringline.pipeline.ports.xdp.sockets import XdpAttachment
    from ringline.shm.packets import PacketMemory


def check(config: PortConfig, packet_bytes: int) -> None:
    """See `Kind.check`."""
    from ringline.pipeline.ports.xdp import checks

    checks.check(config, packet_bytes)


def attach(config: PortConfig, packets: PacketMemory) -> XdpAttachment:
    """See `Kind.attach`."""
    from ringline.pipeline.ports.xdp.sockets import XdpAttachment

    return XdpAttachment(config, packets)


def create(config: PortConfig, index: int) -> XdpPort:
    """See `Kind.create`."""
    from ringline.pipeline.ports.xdp.port import XdpPort

    return XdpPort(config, index)
