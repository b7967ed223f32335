"""Joins the results of tasks: in order, as a tree.

A leaf is a task, or a capture. Two neighbours are joined as soon as both are there, so only
neighbours that wait for each other are held. The tree depends on the number of leaves alone, and
what it joins stays in order: so the result does not depend on which task ends first.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.analysis.engines.engine import line
from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.workers.named.part import COMPLAINTS_MAX


@dataclass
class Outcome:
    """The result of one task, of a capture, or of several.

    numbers: sums, as JSON values; see `add`.
    part: the plugin's state and tables, as bytes; b"": none.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    part: bytes = b""


class Tree:
    """Joins `count` leaves. Give each leaf to `put`, in any order; then take the pairs to join from
    `pairs`, and give what became of each to `joined`."""

    def __init__(self, count: int) -> None:
        self._counts = [count]
        while self._counts[-1] > 1:
            self._counts.append((self._counts[-1] + 1) // 2)
        self._there: dict[tuple[int, int], Outcome | None] = {}
        self._ready: list[tuple[tuple[int, int], Outcome, Outcome]] = []

    def put(self, leaf: int, outcome: Outcome | None) -> None:
        """A leaf is done; None: there is nothing to join."""
        self._place(0, leaf, outcome)

    def pairs(self) -> Iterator[tuple[tuple[int, int], Outcome, Outcome]]:
        """The pairs that can be joined now, each once: its place, and the two outcomes."""
        while self._ready:
            yield self._ready.pop(0)

    def joined(self, place: tuple[int, int], outcome: Outcome) -> None:
        """A pair was joined."""
        self._place(*place, outcome)

    @property
    def is_done(self) -> bool:
        """Whether all leaves are joined."""
        return (len(self._counts) - 1, 0) in self._there

    @property
    def result(self) -> Outcome | None:
        """All leaves as one; None when none has an outcome."""
        return self._there[len(self._counts) - 1, 0]

    def _place(self, level: int, index: int, outcome: Outcome | None) -> None:
        while level < len(self._counts) - 1:
            other = index ^ 1
            if other >= self._counts[level]:  # the last one of an odd number
                level, index = level + 1, index // 2
                continue
            if (level, other) not in self._there:
                self._there[level, index] = outcome
                return
            beside = self._there.pop((level, other))
            first, second = (outcome, beside) if index < other else (beside, outcome)
            level, index = level + 1, index // 2
            if first is not None and second is not None:
                self._ready.append(((level, index), first, second))
                return
            outcome = first or second
        self._there[level, index] = outcome


def answer_of(future: concurrent.futures.Future[Any]) -> tuple[dict[str, Any], bytes]:
    """The answer of a task; that its process died, when the executor says so. Raises
    EnvironmentLacks for an error of the system or of the executor."""
    try:
        answer, part = future.result()
    except (concurrent.futures.BrokenExecutor, concurrent.futures.CancelledError) as error:
        return {"died": f"lost its process ({type(error).__name__})"}, b""
    except RinglineError:
        raise
    except Exception as error:
        # What Python itself raises, except for these, is a mistake of ours.
        if type(error).__module__ == "builtins" and not isinstance(error, (OSError, ImportError)):
            raise
        raise EnvironmentLacks(
            f"the executor cannot do a task: {type(error).__name__}: {line(error)}"
        ) from error
    return answer, part


def joined(
    most: int, outcomes: Iterable[Outcome | None], merge: Callable[[bytes, bytes], bytes]
) -> Tree:
    """A tree of all these, which is done; there are `most` or fewer, and few are held at a time."""
    tree = Tree(max(most, 1))
    rest = iter(outcomes)
    for leaf in range(max(most, 1)):
        tree.put(leaf, next(rest, None))
        for place, a, b in tree.pairs():
            part = merge(a.part, b.part) if a.part and b.part else a.part or b.part
            tree.joined(place, Outcome(add(a.numbers, b.numbers), part))
    return tree


def add(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of two outcomes as one: counters, histograms and times are added, a gauge is
    that of the later one that has set it."""
    summed = {name: _added(a[name], b[name]) for name in ("counters", "drops", "sums") if name in a}
    return summed | {
        "wire_bytes": a["wire_bytes"] + b["wire_bytes"],
        "clipped": a["clipped"] + b["clipped"],
        "nanoseconds": a["nanoseconds"] + b["nanoseconds"],
        "gauges": later(a["gauges"], b["gauges"]),
        "headings": dict(a["headings"]) | dict(b["headings"]),
        "complaints": different([*a["complaints"], *b["complaints"]], b["tier"])[:COMPLAINTS_MAX],
        "trace": a["trace"] or b["trace"],
        "remarks": list(dict.fromkeys([*a["remarks"], *b["remarks"]])),
        "tier": b["tier"],
        "first": min((it for it in (a["first"], b["first"]) if it is not None), default=None),
        "last": max((it for it in (a["last"], b["last"]) if it is not None), default=None),
    }


def different(complaints: Sequence[Sequence[Any]], tier: str) -> list[Sequence[Any]]:
    """The different errors, each of them once, at its first packet: (packet, error), with the path
    of the capture before it or without. A plugin that is no class tells only the error of the first
    packet on which it fails in a piece, so it has one in a capture too."""
    found: dict[tuple[Any, ...], Sequence[Any]] = {}
    for it in complaints:
        *path, packet, what = it
        found.setdefault((*path, "" if packet and tier != "batch" else what), it)
    return list(found.values())


def later(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The gauges of two outcomes as one; None is one that nobody has set."""
    return {name: a.get(name) if b.get(name) is None else b[name] for name in dict(a) | dict(b)}


def _added(a: Any, b: Any) -> Any:
    """Numbers, lists of equal length and tables of them, added place by place."""
    if isinstance(a, Mapping):
        return {
            key: _added(a[key], b[key]) if key in a and key in b else a.get(key, b.get(key))
            for key in dict(a) | dict(b)
        }
    if isinstance(a, list | tuple):
        return [_added(left, right) for left, right in zip(a, b, strict=True)]
    return a + b
