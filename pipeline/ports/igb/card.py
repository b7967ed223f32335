"""The 82576 by its registers, with the operations that differ from those of the 82574L."""

from __future__ import annotations

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
        """A port of the card is an own function, with a PHY of its own."""
        self.take_part(self._phy())

    def release_phy(self) -> None:
        """The firmware may have the PHY again."""
        self.release_part(self._phy())

    def _phy(self) -> str:
        """The PHY of this port. Raises HardwareError for a card that says what cannot be, as one
        that does not answer any more."""
        number = self.STATUS.field("LAN_ID")
        if number > 1:
            raise HardwareError(
                f"{self.name}: the card says that it is port {number} (STATUS.LAN_ID), and it has "
                "only the ports 0 and 1; was it removed?"
            )
        return f"PHY{number}"
