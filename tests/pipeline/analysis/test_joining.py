"""The tree in which results are joined: in order, and the same whichever comes first."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import random

import pytest

from ringline.pipeline.analysis.joining import Outcome, Tree, add, answer_of, different
from ringline.shm.errors import EnvironmentLacks, PluginError


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13])
def test_leaves_are_joined_in_order_whatever_comes_first(count: int) -> None:
    shapes = set()
    for seed in range(20):
        rng = random.Random(seed)
        tree, waiting = Tree(count), []
        leaves = list(range(count))
        rng.shuffle(leaves)
        while leaves or waiting:
            if leaves and (not waiting or rng.random() < 0.5):
                leaf = leaves.pop()
                tree.put(leaf, None if leaf == 5 else Outcome(part=b"%d" % leaf))
            else:
                place, a, b = waiting.pop(rng.randrange(len(waiting)))
                tree.joined(place, Outcome(part=b"(" + a.part + b" " + b.part + b")"))
            waiting += tree.pairs()
        assert tree.is_done
        assert tree.result is not None
        shapes.add(tree.result.part)
    [shape] = shapes
    order = [int(leaf) for leaf in shape.replace(b"(", b"").replace(b")", b"").split()]
    assert order == [leaf for leaf in range(count) if leaf != 5]


def test_a_tree_of_nothing_has_no_result() -> None:
    tree = Tree(2)
    tree.put(1, None)
    assert not tree.is_done
    tree.put(0, None)
    assert tree.is_done
    assert tree.result is None


def test_numbers_are_added_by_kind() -> None:
    def numbers(count: int, gauge: float | None) -> dict[str, object]:
        return {
            "counters": {"packets": count},
            "drops": {},
            "sums": {"seen": count, "kinds": {"a": count}, "sizes": (count, [0, count])},
            "gauges": {"newest": gauge},
            "headings": {},
            "wire_bytes": 60 * count,
            "clipped": 0,
            "nanoseconds": 1.0,
            "complaints": [[count, "x"]],
            "trace": [],
            "remarks": ["r"],
            "tier": "batch",
            "first": None if count == 2 else count,
            "last": count,
        }

    both = add(numbers(2, 5.0), numbers(3, 4.0))
    assert both["sums"] == {"seen": 5, "kinds": {"a": 5}, "sizes": [5, [0, 5]]}
    assert (both["counters"], both["gauges"]) == ({"packets": 5}, {"newest": 4.0})
    assert (both["wire_bytes"], both["first"], both["last"]) == (300, 3, 3)
    assert (both["remarks"], both["complaints"]) == (["r"], [[2, "x"]])
    assert add(numbers(2, 0.0), numbers(3, None))["gauges"] == {"newest": 0.0}
    assert add(numbers(2, None), numbers(3, None))["gauges"] == {"newest": None}


def test_each_error_is_told_once_in_each_capture() -> None:
    first = [("a", 3, "x"), ("a", 0, "tick"), ("a", 5, "y"), ("a", 7, "x"), ("a", 0, "tick")]
    second = [("b", 1, "x")]
    assert different([*first, *second], "batch") == [*first[:3], *second]
    assert different([*first, *second], "C") == [*first[:2], *second]


class KilledWorker(Exception):
    """What an executor may raise that we do not know."""


@pytest.mark.parametrize(
    ("error", "raised", "sentence"),
    [
        (
            OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
            EnvironmentLacks,
            "cannot do a task: OS",
        ),
        (KilledWorker("four\ntimes"), EnvironmentLacks, "a task: KilledWorker: four times"),
        (PluginError("it cannot start"), PluginError, "it cannot start"),
        (ZeroDivisionError("ours"), ZeroDivisionError, "ours"),
    ],
)
def test_an_error_of_the_executor_is_a_sentence(
    error: Exception, raised: type[Exception], sentence: str
) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(error)
    with pytest.raises(raised, match=sentence):
        answer_of(future)
