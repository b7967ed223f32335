"""Registers of a card that are mapped into this process.

Guarantees (tests in tests/pipeline/ports/test_mapping.py):
 - registers that the kernel takes away read as all ones, and a write to them does nothing
   (test_registers_that_are_taken_away_read_as_ones)
 - another SIGBUS ends the process, as without registers (test_another_bus_error_ends_the_process)
 - registers that cannot be watched so are not used
   (test_more_registers_than_can_be_watched_are_refused)
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.shm._shm import lib as shm
from ringline.shm.errors import EnvironmentLacks

_POLL = 100e-6  # seconds between two reads of a register


class MappedRegisters:
    """Mapped registers; implements `RegisterAccess`. `close` unmaps them, and then calls `release`.

    Raises EnvironmentLacks when this process has the registers of too many cards.
    """

    def __init__(
        self, memory: mmap.mmap, *, read_clears: bool, release: Callable[[], object]
    ) -> None:
        self.read_clears = read_clears
        self._memory = memory
        self._release = release
        self._view = ffi.from_buffer("uint8_t[]", self._memory, require_writable=True)
        self._base = int(ffi.cast("uintptr_t", self._view))
        if lib.rl_absent_expect(self._base, len(memory)) != 0:
            self.close()
            raise EnvironmentLacks(
                f"this process has mapped the registers of {lib.RL_ABSENT_MAX} cards, and cannot "
                "have more: use fewer cards"
            )

    def read32(self, address: int) -> int:
        """The 32-bit register at byte `address`."""
        value: int = shm.rl_read32(self._base + address)
        return value

    def write32(self, address: int, value: int) -> None:
        """Write the 32-bit register at byte `address`."""
        shm.rl_write32(self._base + address, value)

    def read(self, address: int, size: int) -> int:
        """The register of `size` bytes, 1, 2 or 4, at byte `address`."""
        value: int = shm.rl_read_narrow(self._base + address, size)
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """Write the register of `size` bytes at byte `address`."""
        shm.rl_write_narrow(self._base + address, size, value)

    def pointer(self, address: int) -> Any:
        """The register as cdata `volatile uint32_t *`; invalid after `close`."""
        return ffi.cast("volatile uint32_t *", self._base + address)

    def relax(self) -> None:
        """Sleep between two reads of a register."""
        time.sleep(_POLL)

    def release_too(self, release: Callable[[], object]) -> None:
        """Call `release` at the end of `close`."""
        before = self._release

        def both() -> None:
            before()
            release()

        self._release = both

    def close(self) -> None:
        """Unmap the registers and release the device."""
        lib.rl_absent_forget(self._base)
        del self._base  # a later access raises AttributeError; it does not crash
        ffi.release(self._view)
        self._memory.close()
        self._release()
