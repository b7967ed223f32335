"""The 82599 by its registers, with the operations that more than one place needs."""

from __future__ import annotations

from collections.abc import Callable

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.ixgbe.registers import QUEUE_STATISTICS, REGISTERS, STATISTICS
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.registers import Register, RegisterAccess, Registers

SPEEDS = {1: 100, 2: 1000, 3: 10000}  # LINKS.SPEED in Mbit/s


class Card(Registers):
    """The registers of one card, and operations on several of them.

    The code relies only on registers that keep what was written: the card may be a model in
    another process that polls plain memory. `rx` and `tx` are the descriptor rings, by queue:
    (device address, number of descriptors). `statistics` are the names of the port's counters and
    their registers, `queue_statistics` those that each queue has.
    """

    definitions = REGISTERS
    statistics = STATISTICS
    queue_statistics = QUEUE_STATISTICS

    def __init__(
        self,
        access: RegisterAccess,
        config: PortConfig,
        bus_mastering: Callable[[bool], None],
        register_seconds: float,
    ) -> None:
        name = f"port {config.name} ({config.device})"
        super().__init__(access, self.definitions, name, register_seconds)
        self.config = config
        self.rx: list[tuple[int, int]] = []
        self.tx: list[tuple[int, int]] = []
        self.bus_mastering = bus_mastering

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

    def link(self) -> Link:
        """The state of the link now."""
        up = bool(self.LINKS.field("UP"))
        return Link(up, SPEEDS.get(self.LINKS.field("SPEED"), 0) if up else 0)

    @property
    def mac(self) -> str:
        """The MAC address that the card receives for, as `02:00:00:00:00:01`."""
        return self.RA.field("ADDRESS").to_bytes(6, "little").hex(":")

    @mac.setter
    def mac(self, text: str) -> None:
        address = int.from_bytes(bytes.fromhex(text.replace(":", "")), "little")
        self.RA.write(ADDRESS=address, AV=1)
