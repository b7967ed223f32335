"""The life cycle of a port on a card that this process takes from PCI: what all drivers share.

A driver adds its registers, the steps of its initialisation, its rings and bursts, and what it
must do in between, in the methods that begin with `_` and have no code here.
"""

from __future__ import annotations

import mmap
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.pci.taken import TakenCard
from ringline.pipeline.ports.port import Link, Port
from ringline.pipeline.ports.registers import RegisterAccess
from ringline.shm.errors import ConfigurationError

if TYPE_CHECKING:
    from ringline.shm.segments import Segment

_SILENT = 0.1  # seconds for the stop of a card that has not answered before


class CardPort(Port):
    """One card; see `Port`. `start` succeeds without a link.

    `steps` is the initialisation. `struct` is the C struct of the port, with a `struct rl_port`
    at its begin and the rings `rx` and `tx`; `bursts` are the names of the C functions of `struct
    rl_port`, in its order, and the last one of them reclaims.
    """

    steps: tuple[Callable[[Any], None], ...]
    struct: ClassVar[str]
    bursts: tuple[str, str, str]
    scan_rings: Callable[..., int]
    """The C function that counts the buffers of rings; it may note them."""
    return_all: Callable[..., None]
    """The C function that returns all buffers of a port's struct to the free list."""
    _card: Any
    """The registers."""
    _note: Segment
    """Where it is noted that the card is taken."""
    _answers: bool
    """Whether the card did all steps."""

    def __init__(self, config: PortConfig, index: int, sysfs: Path) -> None:
        self.name, self.index, self.mac = config.name, index, ""
        self.queue_pairs, self.frame_max = config.queues, config.frame_max
        self._config, self._sysfs = config, sysfs
        self._memory = mmap.mmap(-1, ffi.sizeof(self.struct))  # begins on a page
        self._c = ffi.cast(f"{self.struct} *", ffi.from_buffer(self._memory))
        self.c_port = ffi.addressof(self._c, "port")
        self.c_port.queues = self._c
        self.c_port.index = index
        self.c_port.queue_pairs = config.queues
        self.c_port.frame_max = self.frame_max
        for part, function in zip(("rx_burst", "tx_burst", "reclaim"), self.bursts, strict=True):
            setattr(self.c_port, part, ffi.addressof(lib, function))
        self._access: RegisterAccess | None = None
        self._rings = (self._c.rx, self._c.tx)
        self._running = False
        self._taken = TakenCard()
        self._totals: dict[str, int] = {}  # the last statistics

    def _set_bus_mastering(self, on: bool) -> None:
        """Allow or forbid DMA by the card."""
        self._taken.set_bus_mastering(on)

    # -- life cycle ------------------------------------------------------------------------

    def start(self) -> None:
        queues, count = self._config.queues, self._config.rx_descriptors
        if self.c_port.memory.free_count < queues * count:
            raise ConfigurationError(
                f"memory.buffers: port {self.name} needs {queues} x {count} = {queues * count} "
                f"for its RX descriptors, and {self.c_port.memory.free_count} are free"
            )
        self._taken.write_first(self._note)
        self._running, self._answers = True, False
        self._stop_errors = ()
        self._prepare()
        self._card.begin_call(self.limits.start - self.limits.link)
        for step in self.steps:
            step(self._card)
        self._answers = True
        self.mac = self._card.mac
        deadline = time.monotonic() + self.limits.link
        while not self.link().up and time.monotonic() < deadline:
            self._card.relax()

    @abstractmethod
    def _prepare(self) -> None:
        """What is done before the steps, when the card is taken."""

    def stop(self, seconds: float | None = None) -> None:
        seconds = self.limits.stop if seconds is None else seconds
        if not self._running:
            return
        self._running = False
        self.c_port.ready = 0
        if self._stop_errors or not self._answers:
            seconds = min(seconds, _SILENT)
        begin = time.monotonic()
        self._card.begin_call(seconds)
        with self._noting_errors(self._card.name):
            self._stop_taking()
            deadline = min(time.monotonic() + self.limits.sent, begin + 0.75 * seconds)
            while self.posted()[1] > 0 and time.monotonic() < deadline:
                self._card.relax()
                for queue in range(self._config.queues):
                    self.c_port.reclaim(self.c_port, queue)
            self._stop_card()
        with self._noting_errors(self._card.name):
            self._set_bus_mastering(False)
        self.return_all(self._c)

    @abstractmethod
    def _stop_taking(self) -> None:
        """Stop receiving: what is posted for sending can still be sent."""

    @abstractmethod
    def _stop_card(self) -> None:
        """End all that the card does by itself."""

    def examine(self) -> str:
        why = self._why_it_fails() if self._running else ""
        if why:
            self._use_no_more()
            self.close()
            self._stop_errors = ()  # what is wrong is known
            self.failed = why
        return self.failed

    @abstractmethod
    def _why_it_fails(self) -> str:
        """Why the port cannot go on, or "". The other ports can do without it."""

    @abstractmethod
    def _use_no_more(self) -> None:
        """Keep the bursts from a card that fails."""

    def close(self) -> None:
        if self._access is not None:
            self.stop(self.limits.abandon)
            self._access.close()
            self._access = None

    # -- state and counters ------------------------------------------------------------------

    def link(self) -> Link:
        if self.failed:
            return Link(False, 0)
        link: Link = self._card.link()
        self.c_port.ready = link.up and self._running
        return link

    def posted(self) -> tuple[int, int]:
        rx, tx = (self.scan_rings(it, self._config.queues, ffi.NULL) for it in self._rings)
        return rx, tx

    def scan(self, seen: Any) -> None:
        for rings in self._rings:
            self.scan_rings(rings, self._config.queues, seen)
