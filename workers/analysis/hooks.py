"""What a plugin declares for analyses, and how its parts are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ringline.shm.errors import PluginError
from ringline.workers.analysis import runs
from ringline.workers.analysis.runs import Store
from ringline.workers.named.part import Part
from ringline.workers.tiers.tier import sentence

if TYPE_CHECKING:
    from collections.abc import Callable


class Hooks:
    """What a plugin declares for analyses.

    merge: `merge(a, b)` returns a Part for two parts of which a was captured first. It may change
        and return one of them.
    collect: `collect(worker, state)`, of a class `collect(worker)`: takes what has accumulated out
        of the state, as arrays by name; None: nothing yet. `worker.ending` tells that no packet
        follows.
    store: where rows are that the plugin says are in order, when they are many; None: in memory.
    present: `present(part)` returns tables for the user: by name a dict of columns, each an array
        or a list.
    """

    def __init__(
        self,
        spec: str,
        merge: Callable[[Part, Part], Part] | None,
        collect: Callable[..., Mapping[str, Any] | None] | None,
        present: Callable[[Part], Mapping[str, Mapping[str, Any]]] | None,
    ) -> None:
        self.spec = spec
        self._merge = merge
        self.ordered: dict[str, int] = getattr(merge, "ordered", {})
        self.store: Store | None = None
        self.collect = collect
        self.present = present

    @property
    def can_merge(self) -> bool:
        """Whether the plugin declares `merge`."""
        return self._merge is not None

    def merge(self, a: Part, b: Part) -> Part:
        """The two parts as one. Raises PluginError when the plugin fails."""
        if not a or not b:
            return a or b
        return runs.merged(a, b, list(self.ordered), self.store, self._merged)

    def settled(self, part: Part) -> Part:
        """The part, with its rows on disk if they are many."""
        return runs.settled(part, list(self.ordered), self.store)

    def whole(self, part: Part) -> Part:
        """The part, whose rows are mapped from a file if they are on disk."""
        return runs.whole(part, self.ordered, self.store, self._merged)

    def packed(self, part: Part) -> bytes:
        """The part as bytes. Raises PluginError when it has what cannot be kept."""
        try:
            return part.pack()
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"plugin {self.spec}: what its merge or collect returns cannot be kept: give "
                "arrays of numbers or text by name, and rows (label, numbers) of tables: "
                f"{error}"
            ) from error

    def _merged(self, a: Part, b: Part) -> Part:
        assert self._merge is not None
        try:
            merged = self._merge(a, b)
        except (Exception, SystemExit) as error:
            raise PluginError(f"plugin {self.spec}: merge failed: {sentence(error)}") from error
        if not isinstance(merged, Part):
            raise PluginError(
                f"plugin {self.spec}: merge must return a Part, such as its first argument, not "
                f"{type(merged).__name__}"
            )
        return merged


def collected(spec: str, taken: Any) -> dict[str, Any]:
    """What the plugin's `collect` returned. Raises PluginError when it cannot be a part."""
    made = dict(taken) if isinstance(taken, Mapping) else {}
    wrong = "" if isinstance(taken, Mapping) else type(taken).__name__
    for name, array in made.items():
        if not isinstance(name, str) or not hasattr(array, "dtype"):
            wrong = f"{name!r}: {type(array).__name__}"
        elif array.dtype.hasobject:
            wrong = f"{name!r}: an array of Python objects"
    if wrong:
        raise PluginError(
            f"plugin {spec}: collect must return None, or a dict of NumPy arrays by name, which "
            f"have numbers or texts of a fixed size, not {wrong}"
        )
    return made


class Levels:
    """Joins parts that come one after the other: each is merged with one of about its size, so
    that the work grows little faster than the number of parts."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._parts: list[tuple[int, Part]] = []  # (level, part), the levels fall

    def add(self, part: Part) -> None:
        """Add the next part."""
        level = 0
        while self._parts and self._parts[-1][0] <= level:
            above, before = self._parts.pop()
            part, level = self._hooks.merge(before, part), above + 1
        self._parts.append((level, part))

    def joined(self) -> Part:
        """All parts as one."""
        parts = [part for _, part in self._parts]
        joined = parts.pop() if parts else Part()
        while parts:
            joined = self._hooks.merge(parts.pop(), joined)
        return joined
