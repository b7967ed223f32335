"""`packet:NAME`, a kind of port: see `Kind` in ports/attachment.py.

Each process imports its own half only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.packet.port import PacketPort
    from ringline.pipeline.ports.packet.sockets import PacketAttachment
    from ringline.shm.packets import PacketMemory


def check(config: PortConfig, packet_bytes: int) -> None:
    """See `Kind.check`."""
    del packet_bytes  # the kernel locks no packet memory for this port
    from ringline.pipeline.ports.packet import checks

    checks.check(config)


def attach(config: PortConfig, packets: PacketMemory) -> PacketAttachment:
    """See `Kind.attach`."""
    del packets  # frames are copied from and into rings of the kernel
    from ringline.pipeline.ports.packet.sockets import PacketAttachment

    return PacketAttachment(config)


def create(config: PortConfig, index: int) -> PacketPort:
    """See `Kind.create`."""
    from ringline.pipeline.ports.packet.port import PacketPort

    return PacketPort(config, index)
