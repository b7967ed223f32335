"""The part of an analysis that joins what tasks leave behind, with tasks of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ringline.pipeline.analysis import joining
from ringline.pipeline.analysis.joining import Outcome, Tree, answer_of

TRIES = 2  # of a task whose process dies


class Merging(ABC):
    """A part of an analysis (analysis.py), which has the other methods that are declared here."""

    @abstractmethod
    def _submit(
        self, job: Mapping[str, Any], parts: Sequence[bytes], then: Callable[[Any], None]
    ) -> None:
        """Give a job to the executor; `then` gets its future when it is done."""

    @abstractmethod
    def _check(self, answer: Mapping[str, Any], what: str = "") -> None:
        """Raise the error of an answer, if it is one."""

    def _join(self, tree: Tree, when_done: Callable[[], None]) -> None:
        """Join what can be joined in a tree; `when_done` is called when all of it is one."""
        for place, a, b in tree.pairs():
            numbers = joining.add(a.numbers, b.numbers)
            if not a.part or not b.part:
                tree.joined(place, Outcome(numbers, a.part or b.part))
                continue
            self._merge(tree, place, numbers, (a.part, b.part), when_done, 1)
        if tree.is_done:
            when_done()

    def _merge(
        self,
        tree: Tree,
        place: tuple[int, int],
        numbers: dict[str, Any],
        parts: tuple[bytes, bytes],
        when_done: Callable[[], None],
        tries: int,
    ) -> None:
        """Let the plugin merge two parts, as a task."""

        def then(future: Any) -> None:
            answer, part = answer_of(future)
            if "died" in answer and tries < TRIES:
                self._merge(tree, place, numbers, parts, when_done, tries + 1)
                return
            self._check(answer, ", twice" if tries > 1 else "")
            tree.joined(place, Outcome(numbers, part))
            self._join(tree, when_done)

        self._submit({"do": "merge"}, parts, then)
