"""A card with descriptor rings by its registers: what the families have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.registers import Definition, Register, RegisterAccess, Registers


class RingCard(Registers, ABC):
    """The registers of one card, and operations on several of them.

    The code relies only on registers that keep what was written: the card may be a model in
    another process that polls plain memory. `rx` and `tx` are the descriptor rings, by queue:
    (device address, number of descriptors). `statistics` are the names of the port's counters and
    their registers, `queue_statistics` those that each queue has.
    """

    definitions: ClassVar[dict[str, Definition]]
    statistics: ClassVar[dict[str, str]]
    queue_statistics: ClassVar[dict[str, str]]

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
        self.real = False  # whether it is a card, and not a model of one

    def unmask(self) -> tuple[Register, int] | None:
        """The register that unmasks the receive interrupt, and its bit there; None: the steps of
        this family prepare none."""
        return None

    @abstractmethod
    def switch_receiver(self, *, on: bool) -> None:
        """Take frames from the wire, or stop that."""

    @abstractmethod
    def stop_receive_queues(self) -> None:
        """Stop the receive queues, after the receiver."""

    @abstractmethod
    def stop_transmit_queues(self) -> None:
        """Stop the transmit queues, after the last frame."""

    @abstractmethod
    def link(self) -> Link:
        """The state of the link now."""

    @property
    def mac(self) -> str:
        """The MAC address that the card receives for, as `02:00:00:00:00:01`."""
        return self.RA.field("ADDRESS").to_bytes(6, "little").hex(":")

    @mac.setter
    def mac(self, text: str) -> None:
        self.RA.write(ADDRESS=as_number(text), AV=1)


def as_number(mac: str) -> int:
    """A MAC address as RAL and RAH have it: the first byte is the lowest."""
    return int.from_bytes(bytes.fromhex(mac.replace(":", "")), "little")
