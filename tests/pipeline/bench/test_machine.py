"""Which runs of a benchmark count: those that nothing disturbed, if there are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.bench import machine
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.shm.errors import EnvironmentLacks

HOST = Machine(cpus=(0, 1), arithmetic=1.0, round_trip=100.0, strays={})


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float], list[float]], None]:
    """Sets the arithmetic time and the round trip of each run."""

    def set_speeds(arithmetic: list[float], round_trip: list[float]) -> None:
        def twice(values: list[float]) -> Iterator[float]:  # before and after each run
            return iter([value for value in values for _ in range(2)])

        slow, far = twice(arithmetic), twice(round_trip)
        monkeypatch.setattr(machine, "arithmetic", lambda: next(slow))
        monkeypatch.setattr(machine, "round_trip", lambda cpus: next(far))

    return set_speeds


def counted(runs: int, *, pair: bool = False) -> list[int]:
    """The numbers of the runs that count, from 0."""
    numbers = iter(range(100))
    return quiet_runs(lambda: next(numbers), runs, HOST, pair=pair)


def test_disturbed_runs_are_repeated(speeds: Callable[[list[float], list[float]], None]) -> None:
    speeds([1.0, 1.5, 1.0], [])
    assert counted(2) == [0, 2]


def test_a_run_on_distant_cpus_does_not_count(
    speeds: Callable[[list[float], list[float]], None],
) -> None:
    speeds([1.0, 1.0, 1.0], [100.0, 500.0, 110.0])
    assert counted(2, pair=True) == [0, 2]


def test_after_all_tries_the_least_disturbed_runs_count(
    speeds: Callable[[list[float], list[float]], None],
) -> None:
    speeds([1.0, 1.9, 1.8, 1.2, 1.7, 1.6], [])
    assert counted(2) == [0, 3]


def test_a_cpu_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(EnvironmentLacks, match="CPU 4095 cannot be used here"):
        machine.choose_cpus([0, 4095])
