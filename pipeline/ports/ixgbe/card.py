"""The 82599 by its registers, with the operations that more than one place needs."""

from __future__ import annotations

from collections.abc import Callable

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.ixgbe.registers import REGISTERS
from ringline.pipeline.ports.registers import Register, RegisterAccess, Registers


class Card(Registers):
    """The registers of one card, and operations on several of them.

    The code relies only on registers that keep what was written: the card may be a model in
    another process that polls plain memory. `rx` and `tx` are the descriptor rings, by queue:
    (device address, number of descriptors).
    """

    def __init__(
        self,
        access: RegisterAccess,
        config: PortConfig,
        bus_mastering: Callable[[bool], None],
        register_seconds: float,
    ) -> None:
        name = f"port {config.name} ({config.device})"
        super().__init__(access, REGISTERS, name, register_seconds)
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

    @property
    def mac(self) -> str:
        """The MAC address that the card receives for, as `02:00:00:00:00:01`."""
        return self.RA.field("ADDRESS").to_bytes(6, "little").hex(":")

    @mac.setter
    def mac(self, text: str) -> None:
        address = int.from_bytes(bytes.fromhex(text.replace(":", "")), "little")
        self.RA.write(ADDRESS=address, AV=1)
