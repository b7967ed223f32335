"""The slot of a task of an analysis: it tells which gauges nobody has set.

A new gauge is minus zero there. That is 0 in every calculation, and equal to 0; who sets a gauge to
0 writes the other zero. So a plugin need not say that it sets one, in whatever language it is. A
plugin that writes minus zero itself has set nothing.
"""

from __future__ import annotations

from ringline.shm import slots
from ringline.workers._workers import ffi
from ringline.workers.worker import PrivateSegment

UNSET = 1 << 63  # the word of a gauge that nobody has set: -0.0


class TaskSlot(slots.WorkerSlot):
    """A worker slot in private memory, with room for `state_bytes`."""

    def __init__(self, state_bytes: int) -> None:
        super().__init__(PrivateSegment(state_bytes))  # type: ignore[arg-type]  # for a Segment

    def _add(self, index: int, entry: slots.SlotEntry) -> None:
        if entry.kind == slots.GAUGE:
            ffi.cast("uint64_t *", self.segment.address + entry.offset)[0] = UNSET
        super()._add(index, entry)

    def unset(self) -> set[str]:
        """The names of the gauges that nobody has set."""
        gauges = (entry for entry in self.entries() if entry.kind == slots.GAUGE)
        return {entry.name for entry in gauges if self.values(entry) == [UNSET]}
