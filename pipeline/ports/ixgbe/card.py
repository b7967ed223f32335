"""The 82599 by its registers, with the operations that more than one place needs."""

from __future__ import annotations

from ringline.pipeline.ports.descriptor_rings.card import RingCard
from ringline.pipeline.ports.ixgbe.registers import QUEUE_STATISTICS, REGISTERS, STATISTICS
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.registers import Register

BACKPLANES = (0x10F7, 0x10F8)  # device IDs (ixgbe_type.h of Linux)
X540 = 0x1528  # likewise
SPEEDS = {1: 100, 2: 1000, 3: 10000}  # LINKS.SPEED in Mbit/s


class Card(RingCard):
    """See `RingCard`. `device_id`: on PCI, 0 for a model. A card with one of BACKPLANES has a
    backplane, and no cage for a module."""

    device_id = 0

    definitions = REGISTERS
    statistics = STATISTICS
    queue_statistics = QUEUE_STATISTICS

    def switch_receiver(self, *, on: bool) -> None:
        """RXCTRL, changed while the receive security path is stopped: otherwise DMA may hang
        (erratum)."""
        self.SECRXCTRL.set("RX_DIS")
        self.SECRXSTAT.wait("SECRX_RDY", 1, self.wait_seconds)
        self.RXCTRL.update(RXEN=on)
        self.SECRXCTRL.clear("RX_DIS")

    def switch_queue(self, control: Register, *, on: bool) -> None:
        """RXDCTL or TXDCTL of a queue: write ENABLE, and wait until it reads back."""
        control.update(ENABLE=on)
        control.wait("ENABLE", on, self.wait_seconds)

    def stop_receive_queues(self) -> None:
        """Stop them one by one, after the receiver."""
        for queue in range(len(self.rx)):
            self.switch_queue(self.RXDCTL[queue], on=False)

    def stop_transmit_queues(self) -> None:
        """Stop them one by one, after the last frame."""
        for queue in range(len(self.tx)):
            self.switch_queue(self.TXDCTL[queue], on=False)

    def unmask(self) -> tuple[Register, int]:
        """EIMS, and the first vector, which all receive queues have (`prepare_interrupt`)."""
        return self.EIMS, 1

    def link(self) -> Link:
        """The state of the link now."""
        up = bool(self.LINKS.field("UP"))
        return Link(up, SPEEDS.get(self.LINKS.field("SPEED"), 0) if up else 0)
