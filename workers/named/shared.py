"""Shared state: a table that each worker writes its own part of, and reads all parts of.

The part of a worker is named state in its slot, so it survives a crash of the worker, and only that
worker can write to it. The other workers with the same plugin and options map their slots
without the right to write. `Worker.shared` puts the parts of all of them behind each other in
this process, page by page, so that they are one array.

Nobody locks anything. A reader can find a part in the middle of a change, also for ever, when its
writer died there; 8 aligned bytes are always whole.

Guarantees (tests in tests/workers/test_shared.py):
 - a worker reads what the others wrote (test_each_worker_reads_the_parts_of_all)
 - it cannot write into their parts (test_the_parts_of_others_cannot_be_written)
 - a name means the same part in every worker, or setup fails (test_another_order_is_refused)
"""

from __future__ import annotations

import mmap
import os

from ringline.shm import slots
from ringline.shm._shm import ffi
from ringline.shm.errors import EnvironmentLacks, PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


PAGE = mmap.PAGESIZE
_MAYMOVE, _FIXED = 1, 2  # flags of mremap(2)


class PeerSlot:
    """The slot of a worker with the same plugin, mapped without the right to write. It stands in
    for a Segment. The descriptor is closed; the slot must have `used` bytes."""

    def __init__(self, fd: int, state_bytes: int) -> None:
        self.used = ffi.offsetof("struct rl_slot_segment", "area") + state_bytes
        try:
            self._map = mmap.mmap(fd, self.used, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise EnvironmentLacks(
                f"the slot of another worker cannot be mapped: {error}"
            ) from None
        finally:
            os.close(fd)
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._map)))

    def at(self, pointer: str, offset: int = 0) -> Any:
        """The address of byte `offset`, cast to the C type `pointer`."""
        return ffi.cast(pointer, self.address + offset)


def make(
    slot: slots.WorkerSlot, peers: list[PeerSlot], name: str, dtype: Any, shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The part of this worker, and the parts of all workers: see `Worker.shared`."""
    import numpy as np

    kind = np.dtype(dtype)
    size = kind.itemsize
    for extent in shape:
        size *= extent
    if kind.hasobject or size <= 0 or size % PAGE:
        raise PluginError(
            f"the part of shared state {name!r} must be numbers of together a multiple of "
            f"{PAGE} bytes, not {size}: choose another shape"
        )
    text = slots.fitting(f"shared {kind} {shape}")
    address = slot.lookup_or_add(name, slots.STATE, text, 1, size, align=PAGE)
    own = np.frombuffer(ffi.buffer(ffi.cast("char *", address), size), kind).reshape(shape)
    offset = address - slot.segment.address
    for peer in peers:
        _compare(slots.WorkerSlot(peer), name, offset, text)  # type: ignore[arg-type]  # no Segment
    if not peers:
        view = own.reshape((1, *shape))
        view.flags.writeable = False
        return own, view
    sources = [address, *(peer.address + offset for peer in peers)]
    joined = _join(sources, size)
    view = np.frombuffer(ffi.buffer(ffi.cast("char *", joined), size * len(sources)), kind)
    view = view.reshape((len(sources), *shape))
    view.flags.writeable = False
    return own, view


def _compare(peer: slots.WorkerSlot, name: str, offset: int, type_: str) -> None:
    """Raise PluginError when the other worker named something else. It may have named nothing
    yet: then it compares with this worker. Its directory is as little trusted as any."""
    there = {entry.name: entry for entry in peer.entries() if entry.kind == slots.STATE}
    found = there.get(name)
    if found is not None and (found.offset, found.type) != (offset, type_):
        raise PluginError(
            f"the shared state {name!r} is at another place or has another shape in another "
            "worker: setup must name the same things in the same order in all workers"
        )


def _join(sources: list[int], size: int) -> int:
    """Map the `size` bytes at each of these addresses again, behind each other, for reading."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mremap.restype = ctypes.c_void_p
    reserved = mmap.mmap(-1, size * len(sources), mmap.MAP_PRIVATE, mmap.PROT_READ)
    start = int(ffi.cast("uintptr_t", ffi.from_buffer(reserved)))
    _kept.append(reserved)
    for number, source in enumerate(sources):
        target = start + number * size
        # With an old size of 0, mremap(2) maps the same pages of shared memory once more.
        made = libc.mremap(
            ctypes.c_void_p(source),
            ctypes.c_size_t(0),
            ctypes.c_size_t(size),
            _MAYMOVE | _FIXED,
            ctypes.c_void_p(target),
        )
        if made != target or libc.mprotect(ctypes.c_void_p(target), ctypes.c_size_t(size), 1):
            raise EnvironmentLacks(
                f"shared state cannot be mapped: {os.strerror(ctypes.get_errno())}"
            )
    return start


_kept: list[mmap.mmap] = []  # the mappings last as long as the process
