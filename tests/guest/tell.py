"""A plugin for guests: sends each packet to the other port, and writes into its last five bytes
what the card has said of it: the flags, and the RSS hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringline.workers.api import Batch


class Tell:
    def process(self, batch: Batch) -> None:
        for packet in batch:
            packet.data[-5:] = bytes([packet.flags]) + packet.rss_hash.to_bytes(4, "big")
            packet.verdict = 1 - packet.port
