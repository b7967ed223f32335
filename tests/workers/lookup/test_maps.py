"""Maps in Python: a map is a dict of integers with a bound, ages, and a memory that stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.shm.errors import PluginError
from ringline.workers.api import Map
from ringline.workers.trials.harness import named_values
from ringline.workers.worker import Worker, private_slot

BYTES = 1 << 20
SECOND = 10**9


def successor(slot: Any) -> Worker:
    """The next worker on this slot."""
    return Worker(slot, queue=0, ports=["wan", "lan"], options={})


def new(capacity: int = 20, key: Any = 1, value: Any = 1, lifetime: float | None = None) -> Map:
    return successor(private_slot(BYTES)).map("flows", capacity, key, value, lifetime)


STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "find", "write"]), st.integers(-20, 20)),
    max_size=200,
)


@given(STEPS)
def test_it_is_a_dict(steps: list[tuple[str, int]]) -> None:
    ours = new()
    model: dict[tuple[int, ...], int] = {}
    refused = 0
    for number, (step, key) in enumerate(steps):
        known = (key,) in model
        if step == "insert":
            place = ours.insert(key, number)
            if not known and len(model) == 20:
                refused += 1
                assert place == -1
                continue
            value = model.setdefault((key,), number)
            assert ours.values[place, 0] == value
        elif step == "delete":
            assert ours.delete(key) == known
            model.pop((key,), None)
        else:
            place = ours.find(key)
            assert (place >= 0) == known
            if known and step == "write":
                ours.values[place, 0] = model[key,] = -number
            elif known:
                assert ours.values[place, 0] == model[key,]
    assert {key: value for key, (value,), _ in ours.items()} == model
    assert (len(ours), ours.refused) == (len(model), refused)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 1000])
def test_a_map_takes_its_capacity(capacity: int) -> None:
    ours = new(capacity, key=2)
    for n in range(capacity):
        assert ours.insert((n << 32, n), n) >= 0
    assert ours.insert((-1, -1), 0) == -1
    assert (len(ours), ours.refused) == (capacity, 1)
    assert [ours.values[ours.find((n << 32, n)), 0] for n in range(capacity)] == [*range(capacity)]
    assert ours.delete((0, 0)) == 1
    assert ours.insert((-1, -1), 5) >= 0


def test_refused_entries_are_exported() -> None:
    slot = private_slot(BYTES)
    ours = successor(slot).map("flows", 1)
    for key in range(4):
        ours.insert(key, 0)
    assert named_values(slot) == {"flows_refused": 3}


def test_entries_stay_for_the_next_worker() -> None:
    slot = private_slot(BYTES)
    successor(slot).map("flows", 10, 2, 2).insert((1, 2), (3, 4), 5)
    again = successor(slot).map("flows", 10, 2, 2)
    assert list(again.items()) == [((1, 2), (3, 4), 5)]
    for other in ((10, 1, 3), (10, 3, 1), (11, 2, 2), (10, ["a", "b"], 2)):
        with pytest.raises(PluginError, match="needs another name"):
            successor(slot).map("flows", *other)


def test_a_map_that_a_wild_write_hit_is_empty() -> None:
    slot = private_slot(BYTES)
    ours = successor(slot).map("flows", 10)
    ours.insert(1, 2)
    ours._map.stride = 5
    again = successor(slot).map("flows", 10)
    assert (len(again), again.find(1)) == (0, -1)
    assert again.insert(1, 3) >= 0


def test_entries_age() -> None:
    ours = new(lifetime=2)
    start = 1_700_000_000 * SECOND
    ours.insert(1, 10, start)
    ours.insert(2, 20, start + SECOND)
    ours.insert(3, 30)  # without a time: it does not age
    assert [ours.find(key, start + 2 * SECOND) >= 0 for key in (1, 2, 3)] == [True, True, True]
    late = start + 2 * SECOND + 1
    assert [ours.find(key, late) >= 0 for key in (1, 2, 3)] == [False, True, True]
    assert ours.find(1) >= 0  # of any age
    assert ours.find(1, start - 9 * SECOND) >= 0  # a clock that stepped back
    assert ours.touch(ours.find(1), late) == 1
    assert ours.find(1, late) >= 0
    assert ours.expire(late + SECOND) == 1
    assert sorted(key for (key,), _, _ in ours.items()) == [1, 3]


def test_entries_age_at_both_ends_of_time() -> None:
    first, last = -(1 << 63), (1 << 63) - 1
    ours = new(lifetime=2)
    ours.insert(1, 10, first)
    ours.insert(2, 20, last)
    assert [ours.find(key, last) for key in (1, 2)] == [-1, ours.find(2)]
    assert [ours.find(key, first) >= 0 for key in (1, 2)] == [True, True]
    assert ours.expire(first) == 0
    assert ours.expire(last) == 1
    assert [key for (key,), _, _ in ours.items()] == [2]


def test_an_old_entry_gets_the_new_value() -> None:
    ours = new(lifetime=1)
    place = ours.insert(1, 10, SECOND)
    assert ours.values[ours.insert(1, 11, 2 * SECOND), 0] == 10
    assert ours.insert(1, 12, 3 * SECOND) == place
    assert ours.values[place, 0] == 12
    assert (len(ours), ours.find(1, 4 * SECOND)) == (1, place)


def test_expire_looks_at_some_places_and_goes_on_next_time() -> None:
    ours = new(100, lifetime=1)
    for key in range(100):
        ours.insert(key, key, SECOND)
    assert ours.expire(3 * SECOND, 0) == 0
    assert ours.expire(3 * SECOND, -5) == 0
    counts = [ours.expire(3 * SECOND, 38) for _ in range(4)]
    assert sum(counts) == 100
    assert max(counts) <= 60
    assert len(ours) == 0


def test_without_a_lifetime_nothing_ages() -> None:
    ours = new()
    ours.insert(1, 1, 1)
    assert ours.find(1, 2**62) >= 0
    assert ours.expire(2**62) == 0


@pytest.mark.parametrize("place", [-1, 32, 2**63])
def test_a_place_outside_is_not_touched(place: int) -> None:
    assert new().touch(place, 5) == 0


def test_names_give_records() -> None:
    ours = new(key=["address", "port"], value=["packets", "bytes"])
    place = ours.insert((1, 2), (3, 4))
    ours.values[place].packets += 10
    ours.values["bytes"][place] += 20
    assert list(ours.items()) == [((1, 2), (13, 24), 0)]
    assert (ours.key_names, ours.value_names) == (("address", "port"), ("packets", "bytes"))
    assert new(value=3).values.shape == (32, 3)
    assert new(value=0).insert(7) >= 0


def test_a_number_counts_with_its_low_64_bits() -> None:
    ours = new()
    place = ours.insert(2**64 - 1, 2**63)
    assert ours.find(-1) == ours.find(np.int64(-1)) == place  # type: ignore[arg-type]
    assert ours.values[place, 0] == -(2**63)


def test_a_copy_has_memory_of_its_own() -> None:
    slot = private_slot(BYTES)
    ours = successor(slot).map("flows", 1, value=["packets"])
    ours.insert(1, 5)
    ours.insert(2, 5)
    other = ours.copy()
    other.insert(3, 0)
    other.delete(1)
    assert (len(ours), len(other), other.value_names) == (1, 0, ("packets",))
    assert (ours.refused, other.refused) == (1, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.find((1, 2, 3)), "the key of this map has 2 words, not 3"),
        (lambda m: m.find(1), "the key of this map has 2 words, not 1"),
        (lambda m: m.insert((1, 2)), "the value of this map has 1 word, not 0"),
        (lambda m: m.insert((1, 2), (3, 4)), "the value of this map has 1 word, not 2"),
    ],
)
def test_a_wrong_number_of_words_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(new(key=2))


def test_a_word_must_be_an_integer() -> None:
    with pytest.raises(TypeError):
        new().find(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"capacity": 0}, "the capacity of map 'flows' must be 1 to 4294967296, not 0"),
        ({"capacity": "7"}, "the capacity of map 'flows' must be an integer, not '7'"),
        ({"key": 0}, "the key of map 'flows' must have 1 to 16 words, not 0"),
        ({"key": 17}, "the key of map 'flows' must have 1 to 16 words, not 17"),
        ({"value": 17}, "the value of map 'flows' must have 0 to 16 words, not 17"),
        ({"key": "address"}, "must be a number of words or a list of different names"),
        ({"value": ["a", "a"]}, "must be a number of words or a list of different names"),
        ({"value": ["a b"]}, "must be a number of words or a list of different names"),
        ({"value": 1.5}, "must be a number of words or a list of different names"),
        ({"lifetime": 0}, "the lifetime of map 'flows' must be 1e-9 to 1e9 seconds, not 0"),
        ({"lifetime": float("nan")}, "the lifetime of map 'flows' must be 1e-9 to 1e9 seconds"),
        ({"lifetime": 10**400}, "must be 1e-9 to 1e9 seconds, not 1000"),
        ({"lifetime": "60"}, "the lifetime of map 'flows' must be a number, not '60'"),
        ({"capacity": 10**6}, r"left in its slot: set state = \d+ or more under \[worker\]"),
    ],
)
def test_impossible_maps_are_refused(how: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        new(**how)


def test_the_state_that_is_named_is_enough_for_what_comes_after_a_map() -> None:
    with pytest.raises(PluginError) as caught:
        successor(private_slot(4096)).map("flows", 1000)
    enough = int(str(caught.value).partition("state = ")[2].split()[0])
    worker = successor(private_slot(enough))
    assert worker.map("flows", 1000).refused == 0  # it names a counter, too
    worker.counter("seen", label="kind", values=[str(number) for number in range(64)])
