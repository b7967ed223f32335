"""Drop reasons that a plugin names: verdicts with a name, from RL_VERDICT_REASON on.

The number of a reason is in the directory of the slot and, in case the slot was cleared, in the
supervisor, which counts by it. So a name keeps its number in every life of the worker
(tests/workers/test_drop_reasons.py: test_a_name_keeps_its_number_in_every_life).
"""

from __future__ import annotations

from ringline.shm import slots
from ringline.shm._shm import lib
from ringline.shm.drop_reasons import BUILT_IN
from ringline.shm.errors import PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST: int = lib.RL_VERDICT_REASON
MAX: int = lib.RL_REASONS_MAX


class DropReasons:
    """The drop reasons of one worker.

    `known` are the names that earlier lives of the worker gave; their positions are the numbers.
    """

    def __init__(self, slot: slots.WorkerSlot, known: Sequence[str] = ()) -> None:
        self._slot = slot
        self._known = list(known)
        self._numbers: dict[str, int] = {}
        self._is_closed = False

    def verdict(self, name: str) -> int:
        """The verdict that drops a packet for the reason `name`. Raises PluginError."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._add(name)
        return FIRST + number

    def close(self) -> int:
        """Refuse new names from now on; returns how many verdicts from FIRST on drop a packet."""
        self._is_closed = True
        return max(self._numbers.values(), default=-1) + 1

    def names(self) -> dict[int, str]:
        """The name of each verdict."""
        return {FIRST + number: name for name, number in self._numbers.items()}

    def _add(self, name: str) -> int:
        if self._is_closed:
            raise PluginError(
                f"the drop reason {name!r} must be named in setup: the worker has begun"
            )
        if name in BUILT_IN:
            raise PluginError(
                f"the drop reason {name!r} is one of ringline's own: choose another name"
            )
        taken = dict(enumerate(self._known)) | {
            entry.columns - 1: entry.name
            for entry in self._slot.entries()
            if entry.kind == slots.REASON
        }
        there = [number for number, known in taken.items() if known == name]
        free = [number for number in range(MAX) if number not in taken]
        if not there and not free:
            raise PluginError(f"the plugin names more than {MAX} drop reasons: use fewer")
        number = there[0] if there else free[0]
        self._slot.lookup_or_add(name, slots.REASON, "", number + 1, 0)
        return number
