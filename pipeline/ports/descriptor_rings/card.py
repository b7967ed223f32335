"""A card with descriptor rings by its registers: what the families have in common."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.registers import Definition, Register, RegisterAccess, Registers
from ringline.shm.errors import HardwareError


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

    def take_part(self, part: str) -> None:
        """SW_FW_SYNC: take a part of the card that its firmware and the driver of another port may
        have now (82576: 4.7; 82599: 10.5.4). A driver that was killed may have left its bit."""
        left = time.monotonic() + min(deadlines.SEMAPHORE, self.wait_seconds / 2)
        for _ in self.while_firmware_has(f"SW_FW_SYNC.FW_{part} stays 1"):
            self._lock()
            held = self.SW_FW_SYNC.field(part) and time.monotonic() < left
            free = not (held or self.SW_FW_SYNC.field(f"FW_{part}"))
            if free:
                self.SW_FW_SYNC.set(part)
            self.SWSM.clear("SWESMBI", "SMBI")
            if free:
                return

    def release_part(self, part: str) -> None:
        """The firmware may have it again."""
        self._lock()
        self.SW_FW_SYNC.clear(part)
        self.SWSM.clear("SWESMBI", "SMBI")

    def _lock(self) -> None:
        """SWSM: SMBI keeps the driver of the other port out: a read of 0 sets it. A driver that was
        killed may have left it at 1 (DPDK). SWESMBI keeps the firmware out."""
        with contextlib.suppress(HardwareError):
            self.SWSM.wait("SMBI", 0, min(deadlines.SEMAPHORE, self.wait_seconds))
        self.hold(self.SWSM, "SWESMBI")

    def hold(self, register: Register, bit: str) -> None:
        """Set a bit until it reads 1: it does not while the firmware holds what it stands for."""
        for _ in self.while_firmware_has(f"{register.name}.{bit} stays 0"):
            register.set(bit)
            if register.field(bit):
                return

    def while_firmware_has(self, why: str) -> Iterator[None]:
        """Try again and again, with moments between. Raises HardwareError when the time is over."""
        until = time.monotonic() + (seconds := self.wait_seconds)
        while True:
            yield
            if time.monotonic() >= until:
                raise HardwareError(
                    f"{self.name}: the firmware of the card has kept the link for {seconds:.2g} s "
                    f"({why}); start again, or switch the machine off and on"
                )
            self.relax()


def as_number(mac: str) -> int:
    """A MAC address as RAL and RAH have it: the first byte is the lowest."""
    return int.from_bytes(bytes.fromhex(mac.replace(":", "")), "little")
