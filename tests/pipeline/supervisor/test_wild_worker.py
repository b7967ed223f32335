"""What a wild worker writes and sends: the run goes on, and its successor can serve."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ringline.pipeline.telemetry import report
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import PluginError

from .test_supervisor import Trial


@pytest.fixture
def trial(instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr("ringline.pipeline.supervisor.publisher.DISPLAY_EVERY", 0.02)
    return Trial(instance())


def serves(generation: int) -> Callable[[Snapshot], bool]:
    """Whether worker 0 serves in this generation."""
    return lambda snapshot: snapshot.workers[0].up and snapshot.workers[0].generation == generation


def named(snapshot: Snapshot) -> dict[str, int]:
    return {metric.name: metric.value for metric in snapshot.workers[0].metrics}


def test_a_damaged_slot_is_restored_for_the_successor(trial: Trial) -> None:
    """Its names, and the memory behind them, are as before."""
    trial.until(serves(2))
    outcome = trial.run("tramples", "well", seconds=None)
    assert outcome.error is None
    told = [line for line in trial.announced if "wrote over" in line]
    assert told == [
        "worker 0 wrote over the directory of its slot, which was restored",
        "worker 0 wrote over its counters: they begin at 0 again",
    ]
    assert outcome.snapshot is not None
    assert named(outcome.snapshot) == {"lives": 2, "remembered": 2}
    assert outcome.snapshot.workers[0].counters["packets"] == 0


def test_a_slot_that_is_damaged_again_is_cleared(trial: Trial) -> None:
    trial.until(serves(3))
    outcome = trial.run("tramples_twice", "well", seconds=None)
    assert outcome.error is None
    told = [line for line in trial.announced if "the directory of its slot" in line]
    assert told == [
        "worker 0 wrote over the directory of its slot, which was restored",
        "worker 0 wrote over the directory of its slot again: its successor starts with an empty "
        "slot, so the plugin's counters, tables and state begin at 0 again",
    ]
    assert outcome.snapshot is not None
    assert named(outcome.snapshot) == {"lives": 1, "remembered": 1}


def test_a_slot_that_no_successor_can_use_is_cleared(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the guard does not see the damage, but one successor after the other fails."""
    monkeypatch.setattr("ringline.shm.slot_guard.SlotGuard.damaged", lambda guard: False)
    trial.until(serves(4))
    outcome = trial.run("confuses", "well", seconds=None)
    assert outcome.error is None
    assert any("died repeatedly, and in its start" in line for line in trial.announced)
    assert outcome.snapshot is not None
    assert named(outcome.snapshot) == {"lives": 1, "remembered": 1}


def test_the_words_of_a_worker_are_cut(trial: Trial) -> None:
    outcome = trial.run("swears", "well")
    assert isinstance(outcome.error, PluginError)
    said = str(outcome.error)
    assert said.startswith("\\x1b[2Jbooo")
    assert "more characters)" in said
    assert len(said) < 10_000


def test_a_report_of_any_shape_can_be_written(trial: Trial) -> None:
    outcome = trial.run("digs", "well", seconds=0.5)
    assert outcome.error is None
    assert outcome.snapshot is not None
    whole = report.of_a_run(outcome.snapshot, outcome.error, outcome.reports)
    json.dumps(whole, indent=2, allow_nan=False)


def test_each_traceback_comes_after_its_error(trial: Trial) -> None:
    """The second error comes within a second of the first."""
    trial.run("complains", "well", seconds=0.5)
    assert trial.announced == [
        "worker 0: an error in line 1",
        '  File "mine.py", line 1, in process',
        "worker 0: an error in line 2",
        '  File "mine.py", line 2, in process',
    ]
