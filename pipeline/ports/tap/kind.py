"""`tap:NAME`, a kind of port: see `Kind` in ports/attachment.py.

Each process imports its own half only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.tap.port import TapPort
    from ringline.pipeline.ports.tap.queues import TapAttachment
    from ringline.shm.packets import PacketMemory


def check(config: PortConfig, packet_bytes: int) -> None:
    """See `Kind.check`. Packet memory is not locked, so its size does not matter."""
    from ringline.pipeline.ports.tap import checks

    checks.check(config)


def attach(config: PortConfig, packets: PacketMemory) -> TapAttachment:
    """See `Kind.attach`."""
    from ringline.pipeline.ports.tap.queues import TapAttachment

    return TapAttachment(config)


def create(config: PortConfig, index: int) -> TapPort:
    """See `Kind.create`."""
    from ringline.pipeline.ports.tap.port import TapPort

    return TapPort(config, index)
