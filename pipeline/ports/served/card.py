"""The simulated 82599 as a device of vfio-user: accesses go to the model, and its DMA to the memory
of the client.

Guarantees (tests in tests/pipeline/ports/test_served_card.py):
 - the card reaches only memory that is mapped now, and only while bus mastering is on
   (test_frames_pass_both_ways, test_memory_that_was_unmapped_is_out_of_reach)
 - a file that grows takes no memory away that is mapped
   (test_a_file_that_grows_takes_no_memory_away)
 - nothing of a client is left when it goes (test_nothing_of_a_client_is_left)
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import mmap
import os
import struct
from collections.abc import Sequence

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.served.configuration_space import (
    BAR_BYTES,
    BYTES,
    TABLE_BAR,
    VECTORS,
    ConfigurationSpace,
)
from ringline.pipeline.ports.sim82599.model import Sim82599

# The regions and kinds of interrupts of a PCI device in linux/vfio.h.
_BAR0, _TABLE, _ROM, _CONFIGURATION, _REGIONS = 0, TABLE_BAR, 6, 7, 9
_MSIX, _KINDS = 2, 5

BACKPLANE = 0x10F7  # the device ID; cards with other IDs have a cage for a module
_EVENT = struct.pack("<Q", 1)


class Files:
    """Memory of clients, mapped once for each file, so that parts of a file that were given one by
    one are next to each other here too."""

    def __init__(self) -> None:
        self._maps: dict[tuple[int, int], list[tuple[mmap.mmap, int]]] = {}

    def address(self, fd: int, offset: int, size: int) -> int:
        """The address of a part of a file. Raises OSError, EINVAL: it is not in the file."""
        state = os.fstat(fd)
        if offset + size > state.st_size:
            raise OSError(errno.EINVAL, "beyond the end of the file")
        maps = self._maps.setdefault((state.st_dev, state.st_ino), [])
        if not maps or len(maps[-1][0]) < offset + size:  # the file has grown: what was given stays
            memory = mmap.mmap(fd, state.st_size)
            maps.append((memory, int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))))
        return maps[-1][1] + offset

    def forget(self) -> None:
        """Unmap all. Nothing may point there any more."""
        for memory, _ in itertools.chain(*self._maps.values()):
            with contextlib.suppress(BufferError):
                memory.close()
        self._maps.clear()


@dataclasses.dataclass
class Accesses:
    """How often the client has read and written registers of the card. A `doorbell` is a write to
    the tail of a descriptor ring; `written` counts it too."""

    read: int = 0
    written: int = 0
    doorbells: int = 0

    def __str__(self) -> str:
        return (
            f"registers: {self.read} read, {self.written} written; {self.doorbells} of these were "
            "doorbells"
        )


def _is_tail(offset: int) -> bool:
    """Whether it is RDT of one of 128 queues, in two banks, or TDT of one of 128."""
    bank = 0x1000 <= offset < 0x2000 or 0xD000 <= offset < 0xE000 or 0x6000 <= offset < 0x8000
    return bank and offset % 0x40 == 0x18


class ServedCard:
    """See `Device`. `device` is the device ID, as `model` has a backplane or not. `model` belongs
    to the caller."""

    def __init__(self, model: Sim82599, device: int, mac: bytes) -> None:
        self.regions = [0] * _REGIONS
        for number, size in BAR_BYTES.items():
            self.regions[number] = size
        self.regions[_CONFIGURATION] = BYTES
        self.vectors = [0] * _KINDS
        self.vectors[_MSIX] = VECTORS
        self.accesses = Accesses()
        self._model = model
        self._space = ConfigurationSpace(device, mac)
        self._table = bytearray(BAR_BYTES[TABLE_BAR])
        self._fds = [-1] * VECTORS
        self._files = Files()
        model.bus_master(False)

    def read(self, region: int, offset: int, size: int) -> bytes:
        if region == _CONFIGURATION:
            return self._space.read(offset, size)
        if region == _TABLE:
            return bytes(self._table[offset : offset + size])
        self.accesses.read += max(1, size // 4)
        if size == 4 and offset % 4 == 0:
            return self._model.read32(offset).to_bytes(4, "little")
        if size == 8 and offset % 4 == 0:
            words = self._model.read32(offset), self._model.read32(offset + 4)
            return struct.pack("<II", *words)
        raise OSError(errno.EINVAL, "the registers have 4 bytes")

    def write(self, region: int, offset: int, data: bytes) -> None:
        if region == _CONFIGURATION:
            if self._space.write(offset, data):
                self.reset()
            self._model.bus_master(self._space.bus_master)
        elif region == _TABLE:
            self._table[offset : offset + len(data)] = data
        elif len(data) in (4, 8) and offset % 4 == 0:
            for at in range(0, len(data), 4):
                self.accesses.written += 1
                self.accesses.doorbells += _is_tail(offset + at)
                self._model.write32(offset + at, int.from_bytes(data[at : at + 4], "little"))
        else:
            raise OSError(errno.EINVAL, "the registers have 4 bytes")

    def map_memory(self, address: int, size: int, fd: int, offset: int) -> None:
        try:
            self._model.map_window(address, self._files.address(fd, offset, size), size)
        except ValueError:
            raise OSError(errno.EEXIST, "mapped already") from None

    def unmap_memory(self, address: int, size: int) -> None:
        self._model.unmap_window(address, size)

    def set_vectors(self, start: int, fds: Sequence[int]) -> None:
        """Take ownership of `fds`; -1: none."""
        for number, fd in enumerate(fds, start):
            self._model.vector(number, fd)
            if self._fds[number] >= 0:
                os.close(self._fds[number])
            self._fds[number] = fd
            if fd >= 0:
                os.set_blocking(fd, False)

    def trigger(self, start: int, count: int) -> None:
        for fd in self._fds[start : start + count]:
            if fd >= 0:
                os.write(fd, _EVENT)

    def reset(self) -> None:
        """What a function level reset does: memory stays mapped."""
        self._space.reset()
        self._model.function_reset()

    def release(self) -> None:
        """The client has gone: forget all that is its."""
        self.reset()
        self._model.unmap_window(0, (1 << 64) - 1)
        self.set_vectors(0, [-1] * VECTORS)
        self._files.forget()
