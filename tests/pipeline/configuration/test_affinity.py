"""Placement of the driver and the workers on processors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.configuration.affinity import Place, place, usable_cpus
from ringline.shm.errors import EnvironmentLacks


def test_driver_and_workers_have_separate_cpus_while_there_are_enough() -> None:
    assert place({"driver": None, "worker 0": None}, [0, 1]) == {
        "driver": Place(0, shared=False),
        "worker 0": Place(1, shared=False),
    }


def test_only_processes_that_share_a_cpu_yield() -> None:
    places = place({"driver": None, "worker 0": None, "worker 1": None}, [0, 1])
    assert places["worker 1"].cpu == places["driver"].cpu
    assert [place_.shared for place_ in places.values()] == [True, False, True]


def test_with_one_cpu_all_yield_and_none_is_pinned() -> None:
    places = place({"driver": None, "worker 0": None}, [3])
    assert set(places.values()) == {Place(None, shared=True)}


def test_configured_cpus_are_kept_and_others_avoid_them() -> None:
    places = place({"driver": 1, "worker 0": None, "worker 1": None}, [0, 1, 2])
    assert [places[name].cpu for name in places] == [1, 0, 2]


def test_an_unusable_cpu_is_named() -> None:
    with pytest.raises(EnvironmentLacks, match=r"worker 0 is to run on CPU 9.*only CPU 0, 1"):
        place({"driver": None, "worker 0": 9}, [0, 1])


@given(
    st.integers(1, 8).flatmap(
        lambda cpus: st.tuples(
            st.just(cpus), st.lists(st.none() | st.integers(0, cpus - 1), min_size=1, max_size=17)
        )
    )
)
def test_no_cpu_is_shared_while_another_is_free(case: tuple[int, list[int | None]]) -> None:
    cpus, wishes = case
    places = place({f"process {i}": wish for i, wish in enumerate(wishes)}, range(cpus))
    used = [place_.cpu for place_ in places.values()]
    for i, wish in enumerate(wishes):
        if wish is not None:
            assert used[i] == wish
    if cpus > 1:
        for place_ in places.values():
            assert place_.shared == (used.count(place_.cpu) > 1)
        if all(wish is None for wish in wishes) and len(wishes) <= cpus:
            assert len(set(used)) == len(wishes)


def test_first_threads_of_cores_come_before_second_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = {0: "0-1\n", 1: "0-1\n", 2: "2,3\n", 3: "2,3\n"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(siblings))
    monkeypatch.setattr(
        Path, "read_text", lambda path: siblings[int(path.parts[5].removeprefix("cpu"))]
    )
    assert usable_cpus() == [0, 2, 1, 3]


def test_usable_cpus_are_those_of_this_process() -> None:
    assert sorted(usable_cpus()) == sorted(os.sched_getaffinity(0))
