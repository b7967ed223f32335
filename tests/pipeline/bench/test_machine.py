"""Which runs of a benchmark count: those that nothing disturbed, if there are enough."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ringline.pipeline.bench import machine
from ringline.pipeline.bench.machine import Machine, Runs, quiet_runs
from ringline.pipeline.bench.sampling.windows import Windows
from ringline.shm.errors import EnvironmentLacks

Speeds = Callable[[list[float], list[float]], None]

HOST = Machine(cpus=(0, 1), arithmetic=1.0, round_trip=100.0, strays={})


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Speeds:
    """Sets the arithmetic time and the round trip of each run."""

    def set_speeds(arithmetic: list[float], round_trip: list[float]) -> None:
        # The first value is that before the first run; each run has one after it.
        slow, far = iter([1.0, *arithmetic]), iter([100.0, *round_trip])
        monkeypatch.setattr(machine, "arithmetic", lambda: next(slow))
        monkeypatch.setattr(machine, "round_trip", lambda cpus: next(far))

    return set_speeds


def counted(runs: int, *, pair: bool = False) -> Runs[int]:
    """The numbers of the runs that count, from 0."""
    numbers = iter(range(100))
    return quiet_runs(lambda: next(numbers), runs, HOST, pair=pair)


def test_disturbed_runs_are_repeated(speeds: Speeds) -> None:
    speeds([1.0, 1.5, 1.0, 1.0], [])
    found = counted(2)
    assert list(found) == [0, 3], "the slow moment was between the second and the third run"
    assert found.disturbed == ""


def test_a_run_on_distant_cpus_does_not_count(speeds: Speeds) -> None:
    speeds([1.0] * 4, [100.0, 500.0, 110.0, 100.0])
    assert list(counted(2, pair=True)) == [0, 3]


def test_after_all_tries_the_least_disturbed_runs_count_and_say_why(speeds: Speeds) -> None:
    speeds([1.9, 1.8, 1.3, 1.2], [])
    found = counted(2)
    assert list(found) == [3, 2]
    assert found.disturbed == "a CPU had 77% of its speed; a CPU had 56% of its speed"


def test_a_run_says_itself_what_disturbed_it(speeds: Speeds) -> None:
    speeds([1.0] * 4, [])
    told = iter(["steal", "", "load", ""])
    runs = quiet_runs(lambda: Windows((), {}, next(told)), 2, HOST)
    assert [run.disturbed for run in runs] == ["", ""]
    assert runs.disturbed == ""
    told = iter(["steal", "load", "", "load"])
    speeds([1.0] * 4, [])
    runs = quiet_runs(lambda: Windows((), {}, next(told)), 2, HOST)
    assert runs.disturbed in ("steal", "load"), "one undisturbed run of four, and another one"


def test_a_cpu_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(EnvironmentLacks, match="CPU 4095 cannot be used here"):
        machine.choose_cpus([0, 4095])


INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
stepping\t: 8
flags\t\t: fpu cldemote movdiri

processor\t: 1
flags\t\t: none
"""


def test_the_machine_is_named() -> None:
    facts = machine.processor_facts(INTEL)
    assert facts["model name"] == "Intel(R) Xeon(R) Platinum 8481C"
    assert machine.describe_family(facts) == "GenuineIntel family 6 model 143 stepping 8"
    found = machine.measure_machine(machine.choose_cpus(None)[:1])
    assert f"Linux {os.uname().release}" in found.describe()
    assert found.processor in found.describe()
    assert set(found.to_json()) >= {"cpus", "strays", "processor", "family", "kernel"}


@pytest.mark.parametrize(
    ("cpus", "flags", "other"),
    [((0, 1), {"cldemote"}, False), ((0, 1), {"avx2"}, True), ((0,), {"cldemote"}, True)],
)
def test_absolute_goals_hold_for_one_kind_of_machine(
    cpus: tuple[int, ...], flags: set[str], other: bool
) -> None:
    found = Machine(cpus, 1.0, 100.0, {}, flags=frozenset(flags))
    assert found.goal_on == (machine.REFERENCE if other else "")


def test_another_processor_than_x86_has_a_name_too() -> None:
    assert machine.describe_family({}) == os.uname().machine
