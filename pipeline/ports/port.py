"""The interface of every kind of network card, as the driver process uses it.

The packet path of a port is C, behind `struct rl_port` (port.h). `Port` is the control path:
find the card, start and stop it, read its link and its statistics.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.shm._shm import lib
from ringline.shm.errors import EnvironmentLacks, HardwareError

if TYPE_CHECKING:
    from ringline.pipeline.ports.pci.vfio import Container
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses


@dataclass(frozen=True)
class Link:
    """State of the link; `mbps` is its speed in Mbit/s, 0 while the link is down."""

    up: bool
    mbps: int


class Port(ABC):
    """One network interface. Not thread-safe.

    Call open, start, stop_receiving (optional), stop, close in this order; start and stop may
    repeat.
    """

    name: str
    """The name in the configuration."""
    index: int
    """The port's number in the instance: in references, ledger words and counters."""
    queue_pairs: int
    """Number of RX queues, and of TX queues."""
    frame_max: int = lib.RL_FRAME_MAX
    """Bytes of the longest frame that it sends and receives, its VLAN tag included."""
    c_port: Any
    """cdata `struct rl_port *`, valid for the port's lifetime; the lane polls it after `start`."""
    step: tuple[int, int] | None = None
    """Addresses of the function and the context of a device model that the lane steps; None for a
    real card and for a model in another process."""
    container: Container | None = None
    """The memory that a card reaches through VFIO; the driver sets it."""
    limits = PortLimits()
    """How long each call may wait; the driver sets the port's share."""
    _stop_errors: tuple[str, ...] = ()
    failed = ""
    """Why the port has failed for good, as the end of a sentence; its card is released then, and
    packets for it are dropped as `tx_down`. The other ports go on."""
    checksums = False
    """Whether the card computes the checksums of frames with RL_FLAG_FIX_CHECKSUMS."""
    live_stamps = False
    """Whether `c_port.stamps` are times of the clock of this machine, not those of a capture."""
    mac: str
    """The card's MAC address, as `02:00:00:00:00:01`; empty before the first `start`."""

    @abstractmethod
    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        """Find the card, check that it is not in use, and map its registers.

        `memory` is cdata `struct rl_memory *` of the lane; `addresses` are the device addresses
        of `descriptors`. Raises `EnvironmentLacks` when the card is missing or in use,
        `ConfigurationError` for a setting that the card does not support.
        """

    @abstractmethod
    def start(self) -> None:
        """Reset and initialise the card, post a buffer in every RX descriptor, start receiving.

        Raises `HardwareError` when the card does not answer in time, `ConfigurationError` when
        packet memory has too few free buffers.
        """

    @abstractmethod
    def stop_receiving(self) -> None:
        """Stop taking frames from the wire. Packets that the card already has can still be
        received, and posted packets are still sent. `trouble` says if the card did not answer."""

    @abstractmethod
    def stop(self) -> None:
        """Stop receiving, drain and stop sending, switch DMA off; then return every buffer of the
        descriptor rings to the free list, even when the card does not answer: `trouble` says so."""

    @abstractmethod
    def close(self) -> None:
        """Stop the card if it runs, and release it. May be called again."""

    @abstractmethod
    def link(self) -> Link:
        """The state of the link now; also sets `c_port.ready` for the lane."""

    @abstractmethod
    def statistics(self) -> dict[str, int]:
        """The card's counters since `start`, by name."""

    @abstractmethod
    def posted(self) -> tuple[int, int]:
        """The numbers of buffers on the RX and on the TX descriptor rings, counted descriptor by
        descriptor."""

    @abstractmethod
    def scan(self, seen: Any) -> None:
        """Add one to `seen[buffer]` (cdata `uint8_t *`) for each buffer that `posted` counts."""

    def examine(self) -> str:
        """Look whether the card is still there and does its work; called once a second. Returns
        `failed`."""
        return self.failed

    def wire_finished(self) -> bool:
        """True once a simulated wire has nothing more to send; always False for a real card."""
        return False

    def wire_statistics(self) -> dict[str, int]:
        """Counters of a simulated wire, by name; empty for a real card."""
        return {}

    def trouble(self) -> str | None:
        """A problem that only the operator can solve, for example a disk too full to record to;
        None when there is none. Here: the first error of a stop."""
        return next(iter(self._stop_errors), None)

    def bad_input(self) -> str | None:
        """Why a simulated wire could not replay its capture to the end; None when it could, and for
        a real card."""
        return None

    def faults(self) -> list[str]:
        """Why it has failed, errors of `stop`, and requests to a simulated card that the chip would
        refuse, as sentences."""
        failed = [f"the port has failed: {self.failed}"] if self.failed else []
        return [*failed, *self._stop_errors]

    @contextlib.contextmanager
    def _noting_errors(self, card: str) -> Iterator[None]:
        """Keep an error of a stop, which goes on. `card` is the name with which it begins."""
        try:
            yield
        except (HardwareError, EnvironmentLacks) as error:
            said = str(error).removeprefix(f"{card}: ")
            self._stop_errors = (*self._stop_errors, f"while the port was being stopped: {said}")
