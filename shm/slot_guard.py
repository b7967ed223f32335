"""The supervisor's guard of a worker slot: it sees when a wild write hit the slot.

The directory of a slot lies before the memory of the plugin, so an index that becomes negative
overwrites it. Then no successor finds its names, and the queue would be given up. The guard
keeps a copy of the entries that a worker added. When a worker has died, it compares, and puts
the entries back.

Guarantees (tests in tests/shm/test_slot_guard.py):
 - an entry that changed, vanished, or cannot have been made by a worker is damage
   (test_a_wild_write_over_the_directory_is_seen)
 - what a worker that dies at any moment leaves is no damage
   (test_an_entry_that_is_half_written_is_no_damage)
 - counters that a worker cannot have reached are seen (test_impossible_counters_are_seen)
 - `restore` brings the names back, with the memory that they had
   (test_a_restored_directory_names_the_same_memory)
 - after `reset` the slot is as new (test_after_a_reset_the_slot_is_as_new)
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.shm.slots import WorkerSlot

_ENTRY: int = ffi.sizeof("struct rl_slot_entry")
_ENTRIES: int = ffi.offsetof("struct rl_slot_segment", "entries")
_COUNTERS: int = ffi.offsetof("struct rl_slot_segment", "counters")
_AREA: int = ffi.offsetof("struct rl_slot_segment", "area")
_STEP = 1 << 20  # bytes that are cleared at once
# Packets that the worker has counted and the lane has not yet: far more than one batch.
_SLACK = 1 << 16
_LENGTH_MAX = 0xFFFF  # bytes, what a reference can say


class SlotGuard:
    """Watches the slot `slot`, which other processes write."""

    def __init__(self, slot: WorkerSlot) -> None:
        self._slot = slot
        self._known = b""  # the entries that were there when they were last believed

    def note(self) -> None:
        """Take over the entries that the worker has added, unless the directory is damaged."""
        raw, used = self._directory(), self._used()
        if used is not None and raw.startswith(self._known):
            self._known = raw[: used * _ENTRY]

    def damaged(self) -> bool:
        """Whether something other than `Worker` has written to the directory."""
        return self._used() is None or not self._directory().startswith(self._known)

    def impossible_counters(self, pushed: int) -> bool:
        """Whether the worker counts more than the `pushed` references that it can have taken, or
        more time than has passed since the machine started."""
        own, most, now = self._slot.counters, pushed + _SLACK, lib.rl_now()
        packets = (own.packets, own.batches, own.forwarded, own.dropped, own.plugin_errors)
        times = (own.busy_ticks, own.idle_ticks, own.plugin_ticks)
        return bool(max(packets) > most or max(times) > now or own.bytes > most * _LENGTH_MAX)

    def restore(self) -> None:
        """Put back the entries that were believed, and clear all others. No worker may run."""
        rest = _AREA - _ENTRIES - len(self._known)
        self._slot.segment.memory[_ENTRIES:_AREA] = self._known + bytes(rest)

    def reset(self) -> None:
        """Clear directory, counters, tables and state. No worker may run."""
        self._known = b""
        self._clear(_ENTRIES, self._slot.segment.used)

    def reset_counters(self) -> None:
        """Clear the counters of the worker itself. No worker may run."""
        self._clear(_COUNTERS, _ENTRIES)

    def _clear(self, start: int, end: int) -> None:
        memory: Any = self._slot.segment.memory
        zeros = bytes(min(_STEP, end - start))
        for at in range(start, end, _STEP):
            part = min(_STEP, end - at)
            memory[at : at + part] = zeros[:part]

    def _directory(self) -> bytes:
        return bytes(self._slot.segment.memory[_ENTRIES:_AREA])

    def _used(self) -> int | None:
        """How many entries are in use; None when workers cannot have made them: a gap, a name
        twice, an impossible entry, or memory that overlaps."""
        end, names, used, gap = _AREA, set(), 0, False
        for index in range(lib.RL_SLOT_ENTRIES):
            if not self._slot.is_used(index):
                gap = True
                continue
            entry = self._slot.entry(index)
            if gap or entry is None or entry.key in names or entry.offset < end:
                return None
            names.add(entry.key)
            end = entry.offset + entry.bytes
            used += 1
        return used
