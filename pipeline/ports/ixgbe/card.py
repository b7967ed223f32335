"""The 82599 by its registers: what is done to it more often than once."""

from __future__ import annotations

from collections.abc import Callable

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.ixgbe.registers import REGISTERS
from ringline.pipeline.ports.registers import Register, RegisterAccess, Registers


class Card(Registers):
    """The registers of one card, with what is done to several of them at a time.

    Nothing here relies on more than that a register keeps what was written: the card may be a
    model in another process that looks at plain memory now and then. `wait_seconds` is how many
    seconds it may take to answer; after that a handshake raises `HardwareError`. `rx` and `tx`
    are the descriptor rings, by queue: device address, number of descriptors.
    """

    def __init__(
        self,
        access: RegisterAccess,
        config: PortConfig,
        bus_mastering: Callable[[bool], None],
        wait_seconds: float,
    ) -> None:
        super().__init__(access, REGISTERS, f"port {config.name} ({config.device})")
        self.config = config
        self.rx: list[tuple[int, int]] = []
        self.tx: list[tuple[int, int]] = []
        self.bus_mastering = bus_mastering
        self.wait_seconds = wait_seconds

    def switch_receiver(self, *, on: bool) -> None:
        """RXCTRL, with the receive security path stopped: DMA may hang otherwise (erratum)."""
        self.SECRXCTRL.set("RX_DIS")
        self.SECRXSTAT.wait("SECRX_RDY", 1, self.wait_seconds)
        self.RXCTRL.update(RXEN=on)
        self.SECRXCTRL.clear("RX_DIS")

    def switch_queue(self, control: Register, *, on: bool) -> None:
        """RXDCTL or TXDCTL of a queue, which is on or off once the bit reads so."""
        control.update(ENABLE=on)
        control.wait("ENABLE", on, self.wait_seconds)

    @property
    def mac(self) -> str:
        """The address to receive for, as `02:00:00:00:00:01`."""
        return self.RA.field("ADDRESS").to_bytes(6, "little").hex(":")

    @mac.setter
    def mac(self, text: str) -> None:
        address = int.from_bytes(bytes.fromhex(text.replace(":", "")), "little")
        self.RA.write(ADDRESS=address, AV=1)
