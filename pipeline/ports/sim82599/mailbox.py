"""Register access to a simulated card in another process, through its mailbox."""

from __future__ import annotations

import time
from typing import Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.sim82599.model import BAR_BYTES
from ringline.shm.errors import Bug, HardwareError

ANSWER_SECONDS = deadlines.MAILBOX  # a running model answers in well under a millisecond
PAUSE = 100e-6  # seconds between two reads of a register


class Mailbox:
    """See `RegisterAccess`. `card` is cdata `struct rl_sim_card *`, `name` the port's name.

    Accesses raise `HardwareError` when the model does not answer: its process is gone or hangs.
    """

    read_clears = True

    def __init__(self, card: Any, name: str) -> None:
        self._card = card
        self._name = name
        self._result = ffi.new("uint32_t *")
        self._gone = False  # after one timeout: later requests do not wait

    def read32(self, address: int) -> int:
        """Read a register, with the side effects of a read."""
        return self._ask(lib.RL_SIM_READ, address, 0)

    def write32(self, address: int, value: int) -> None:
        """Write a register, with the side effects of a write."""
        self._ask(lib.RL_SIM_WRITE, address, value)

    def bus_master(self, on: bool) -> None:
        """Set the bus master bit of the PCI command register; without it the card does no DMA."""
        self._ask(lib.RL_SIM_BUS_MASTER, 0, int(on))

    def pointer(self, address: int) -> Any:
        """A tail register, RDT or TDT, as cdata `volatile uint32_t *` for direct writes."""
        if not 0 <= address < BAR_BYTES:
            raise Bug(f"register 0x{address:05x} is not in the BAR")
        return ffi.addressof(self._card.tails, address // 4)

    def relax(self) -> None:
        """Wait a moment between two reads."""
        time.sleep(PAUSE)

    def close(self) -> None:
        """Does nothing: the port closes the segment."""

    def _ask(self, operation: int, address: int, value: int) -> int:
        limit = 0 if self._gone else int(ANSWER_SECONDS * 1e9)
        if lib.rl_sim_request(self._card, operation, address, value, self._result, limit) != 0:
            self._gone = True
            raise HardwareError(
                f"port {self._name}: waited {ANSWER_SECONDS:g} s for the simulated card to answer "
                f"an access to register 0x{address:05x}; its process is gone or hangs"
            )
        return int(self._result[0])
