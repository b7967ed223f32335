"""The 82574L by its registers, with the operations that more than one place needs."""

from __future__ import annotations

from ringline.pipeline.ports.descriptor_rings.card import RingCard
from ringline.pipeline.ports.e1000e.registers import QUEUE_STATISTICS, REGISTERS, STATISTICS
from ringline.pipeline.ports.port import Link

SPEEDS = (10, 100, 1000, 1000)  # STATUS.SPEED in Mbit/s
PHY = 1  # its address on the bus of MDIC
MDIC_WRITE = 1


class Card(RingCard):
    """See `RingCard`. A queue of this chip has no switch of its own."""

    definitions = REGISTERS
    statistics = STATISTICS
    queue_statistics = QUEUE_STATISTICS

    def switch_receiver(self, *, on: bool) -> None:
        """RCTL.EN. A receiver that is on stays on until a reset, as with Linux's driver
        (FLAG2_NO_DISABLE_RX): it may hang when it is switched off. Instead its filters, which
        `set_filters` has set, accept nothing then."""
        if on:
            self.RCTL.set("EN")
        else:
            self.RCTL.update(BAM=0, UPE=0, MPE=0)
            for address in (self.RA, *self.RA_MORE):
                address.clear("AV")

    def stop_receive_queues(self) -> None:
        """Nothing: no frame passes the filters."""

    def stop_transmit_queues(self) -> None:
        """TCTL: stop the transmitter."""
        self.TCTL.clear("EN")

    def link(self) -> Link:
        """The state of the link now."""
        up = bool(self.STATUS.field("LU"))
        return Link(up, SPEEDS[self.STATUS.field("SPEED")] if up else 0)

    def take_phy(self) -> None:
        """[4.5.2] EXTCNF_CTRL: the firmware of the card uses the PHY too, and may have it now."""
        self.hold(self.EXTCNF_CTRL, "MDIO_SW")

    def release_phy(self) -> None:
        """The firmware may have the PHY again."""
        self.EXTCNF_CTRL.clear("MDIO_SW")

    def write_phy(self, register: int, value: int) -> None:
        """Write a register of the PHY, which `take_phy` has taken."""
        self.MDIC.write(DATA=value, REGADD=register, PHYADD=PHY, OP=MDIC_WRITE)
        self.MDIC.wait("READY", 1, self.wait_seconds)
