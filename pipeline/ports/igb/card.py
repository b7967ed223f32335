"""The 82576 by its registers, with the operations that differ from those of the 82574L."""

from __future__ import annotations

from ringline.pipeline.ports.e1000e import card as e1000e
from ringline.pipeline.ports.igb.registers import QUEUE_STATISTICS, REGISTERS


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
        """A port of the card is an own function, with a PHY of its own. There are two."""
        self.take_part(f"PHY{self.STATUS.field('LAN_ID') & 1}")

    def release_phy(self) -> None:
        """The firmware may have the PHY again."""
        self.release_part(f"PHY{self.STATUS.field('LAN_ID') & 1}")
