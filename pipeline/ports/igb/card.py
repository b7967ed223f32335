"""The 82576 by its registers, with the operations that differ from those of the 82574L."""

from __future__ import annotations

import contextlib

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.e1000e import card as e1000e
from ringline.pipeline.ports.igb.registers import QUEUE_STATISTICS, REGISTERS
from ringline.shm.errors import HardwareError


class Card(e1000e.Card):
    """See the card of e1000e. Here a queue has a switch of its own."""

    definitions = REGISTERS
    queue_statistics = QUEUE_STATISTICS

    def switch_receiver(self, *, on: bool) -> None:
        """RCTL.EN. This receiver can be switched off."""
        self.RCTL.update(EN=on)

    def stop_receive_queues(self) -> None:
        """RXDCTL, after the receiver. That no DMA is under way shows in STATUS later."""
        for queue in range(len(self.rx)):
            self.RXDCTL[queue].clear("ENABLE")

    def stop_transmit_queues(self) -> None:
        """TXDCTL, after the last frame, and the transmitter."""
        for queue in range(len(self.tx)):
            self.TXDCTL[queue].clear("ENABLE")
        self.TCTL.clear("EN")

    def take_phy(self) -> None:
        """SW_FW_SYNC: the firmware of the card uses the PHY too, and may have it now. A port of the
        card is an own function, with a PHY of its own."""
        phy = f"PHY{self.STATUS.field('LAN_ID')}"
        for _ in self.firmware_has_phy(f"SW_FW_SYNC.FW_{phy} stays 1"):
            self._lock()
            free = not self.SW_FW_SYNC.field(f"FW_{phy}")
            if free:
                self.SW_FW_SYNC.set(phy)
            self.SWSM.clear("SWESMBI", "SMBI")
            if free:
                return

    def release_phy(self) -> None:
        """The firmware may have the PHY again."""
        self._lock()
        self.SW_FW_SYNC.clear(f"PHY{self.STATUS.field('LAN_ID')}")
        self.SWSM.clear("SWESMBI", "SMBI")

    def _lock(self) -> None:
        """SWSM: SMBI keeps the driver of the other port out: a read of 0 sets it. A driver that was
        killed may have left it at 1 (DPDK). SWESMBI keeps the firmware out."""
        with contextlib.suppress(HardwareError):
            self.SWSM.wait("SMBI", 0, min(deadlines.SEMAPHORE, self.wait_seconds))
        self.hold(self.SWSM, "SWESMBI")
