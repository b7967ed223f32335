"""What every network interface offers to the driver process, whatever the card.

The packet path of a port is C behind `struct rl_port` (port.h); this is the rest:
finding the card, starting and stopping it, and what it can tell about itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses


@dataclass(frozen=True)
class Link:
    """The state of the cable; `mbps` is 0 while the link is down."""

    up: bool
    mbps: int


class Port(ABC):
    """One network interface. Not safe for use by two threads.

    The order of calls is open, start, (stop_receiving), stop, close; start and stop may repeat.
    """

    name: str
    """As the configuration names it."""
    index: int
    """Its number in the instance: the port of references, ledger words and counters."""
    queue_pairs: int
    """RX queues, and as many TX queues."""
    c_port: Any
    """cdata `struct rl_port *`, the same for the port's life; the lane polls it from `start`."""
    step: tuple[int, int] | None = None
    """Function and context address of a device model that the lane steps; None: real or remote."""
    mac: str

    @abstractmethod
    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        """Find the card, check that nobody else uses it, and map its registers.

        `memory` is cdata `struct rl_memory *` of the lane; `addresses` are the device addresses
        of `descriptors`. Raises `EnvironmentLacks`, and `ConfigurationError` for what this card
        does not have.
        """

    @abstractmethod
    def start(self) -> None:
        """Reset and initialise the card, post every RX descriptor, receive.

        Raises `HardwareError` when the card does not do what was awaited, `ConfigurationError`
        when packet memory has too few free buffers.
        """

    @abstractmethod
    def stop_receiving(self) -> None:
        """The card takes nothing more from the wire; what it has received can still be
        received, and what was posted for sending is sent."""

    @abstractmethod
    def stop(self) -> None:
        """Orderly stop: receive off, transmit drained and off, DMA off; then every buffer on a
        descriptor ring is back on the free list, whatever the card did."""

    @abstractmethod
    def close(self) -> None:
        """Give the card back. Stops it first if need be."""

    @abstractmethod
    def link(self) -> Link:
        """The state of the cable now; also tells the lane, by `c_port.ready`."""

    @abstractmethod
    def statistics(self) -> dict[str, int]:
        """What the card has counted since `start`, by name."""

    @abstractmethod
    def posted(self) -> tuple[int, int]:
        """Buffers on its RX and on its TX descriptor rings, counted slot by slot."""

    @abstractmethod
    def scan(self, seen: Any) -> None:
        """For a full scan: add one to `seen[buffer]` (cdata `uint8_t *`) for each of them."""

    def wire_finished(self) -> bool:
        """True once a simulated wire has nothing more to send; a real one never says so."""
        return False

    def wire_statistics(self) -> dict[str, int]:
        """What a simulated wire has counted for itself."""
        return {}

    def trouble(self) -> str | None:
        """What keeps the port from what it was configured for, and only the operator can put
        right, as a disk too full to record to; None: nothing."""
        return None

    def faults(self) -> list[str]:
        """What a simulated card was asked to do that the chip would not do."""
        return []
