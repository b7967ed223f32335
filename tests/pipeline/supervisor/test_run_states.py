"""Promises of the run table: every way through a run, without a process and without a clock."""

from __future__ import annotations

import pytest

from ringline.pipeline.supervisor.run_states import (
    TABLE,
    Action,
    Event,
    Patience,
    Run,
    Stage,
    step,
)
from ringline.pipeline.supervisor.worker_states import Policy
from ringline.shm.errors import Bug


def run_told(run: Run, *events: Event) -> tuple[Run, list[Action]]:
    done: list[Action] = []
    for event in events:
        run, actions = step(run, event, 0.0, Patience())
        done += actions
    return run, done


def test_an_orderly_run_does_everything_once_in_order() -> None:
    run, done = run_told(
        Run(),
        Event.OPENED,
        Event.ALL_READY,
        Event.BEGUN,
        Event.STOP,
        Event.DRAINED,
        Event.WORKERS_GONE,
        Event.DRIVER_CLOSED,
        Event.DRIVER_GONE,
        Event.CARDS_GONE,
    )
    assert run.stage is Stage.ENDED
    assert done == [
        Action.BEGIN,
        Action.SERVE,
        Action.DRAIN,
        Action.STOP_WORKERS,
        Action.STOP_DRIVER,
        Action.STOP_CARDS,
        Action.FINISH,
    ]


def test_a_dead_driver_stops_dma_first_and_its_books_are_settled() -> None:
    run, _ = run_told(Run(), Event.OPENED, Event.ALL_READY, Event.BEGUN)
    run, done = run_told(run, Event.DRIVER_GONE, Event.WORKERS_GONE, Event.CARDS_GONE)
    assert run.stage is Stage.ENDED
    assert done == [
        Action.STOP_DMA,
        Action.STOP_WORKERS,
        Action.STOP_CARDS,
        Action.SETTLE,
        Action.FINISH,
    ]


def test_a_driver_that_ends_without_closing_its_books_has_them_settled() -> None:
    run, _ = run_told(
        Run(),
        Event.OPENED,
        Event.ALL_READY,
        Event.BEGUN,
        Event.STOP,
        Event.DRAINED,
        Event.WORKERS_GONE,
    )
    run, done = run_told(run, Event.DRIVER_GONE, Event.WORKERS_GONE, Event.CARDS_GONE)
    assert run.stage is Stage.ENDED
    assert Action.STOP_DMA in done
    assert done[-2:] == [Action.SETTLE, Action.FINISH]


def test_a_second_stop_hurries_and_skips_nothing() -> None:
    run, _ = run_told(Run(), Event.OPENED, Event.ALL_READY, Event.BEGUN, Event.STOP)
    patient = run.deadline
    run, done = run_told(run, Event.STOP)
    assert done == [Action.HURRY]
    assert run.deadline is not None
    assert patient is not None
    assert run.deadline < patient
    _, done = run_told(
        run,
        Event.DEADLINE,
        Event.WORKERS_GONE,
        Event.DRIVER_CLOSED,
        Event.DRIVER_GONE,
        Event.CARDS_GONE,
    )
    assert done == [Action.STOP_WORKERS, Action.STOP_DRIVER, Action.STOP_CARDS, Action.FINISH]


def test_a_key_held_down_does_not_put_off_the_end() -> None:
    run, _ = run_told(Run(), Event.OPENED, Event.ALL_READY, Event.BEGUN, Event.STOP, Event.STOP)
    soon = run.deadline
    run, actions = step(run, Event.STOP, 0.1, Patience())
    assert (run.deadline, actions) == (soon, ())


def test_workers_have_the_time_to_be_killed() -> None:
    policy = Policy()
    assert Patience().retire > 2 * policy.stop + policy.grace, "asked to stop, then killed"


def test_a_silent_driver_is_aborted_then_killed() -> None:
    run, _ = run_told(Run(), Event.OPENED, Event.ALL_READY, Event.BEGUN)
    run, done = run_told(run, Event.DRIVER_SILENT, Event.DEADLINE, Event.DRIVER_GONE)
    assert done == [Action.ABORT_DRIVER, Action.KILL_DRIVER, Action.STOP_DMA, Action.STOP_WORKERS]


def reachable_runs() -> list[Run]:
    start = Run()
    seen, todo = {start}, [start]
    while todo:
        run = todo.pop()
        for event in Event:
            if (run.stage, event) in TABLE:
                after, _ = step(run, event, 0.0, Patience())
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return list(seen)


RUNS = reachable_runs()


def test_every_run_ends() -> None:
    """Whoever asks for the end gets it, even when no child ever answers."""
    for first in RUNS:
        run = first
        told_stop = step(run, Event.STOP, 0.0, Patience())
        run = told_stop[0]
        done: list[Action] = list(told_stop[1])
        for _ in range(12):
            if run.stage is Stage.ENDED:
                break
            run, actions = step(run, Event.DEADLINE, 0.0, Patience())
            done += actions
        assert run.stage is Stage.ENDED, f"{first} does not end"
        if first.stage is not Stage.ENDED:
            assert done[-1] is Action.FINISH


def test_every_stage_that_waits_for_a_child_has_a_deadline() -> None:
    free = {Stage.OPENING, Stage.RUNNING, Stage.ENDED}
    for run in RUNS:
        assert run.stage in free or run.deadline is not None, f"{run} waits for ever"


def test_books_are_settled_unless_the_driver_closed_them() -> None:
    for run in RUNS:
        if run.stage is Stage.DISMISSING:
            _, actions = step(run, Event.CARDS_GONE, 0.0, Patience())
            assert (Action.SETTLE in actions) != run.closed


def test_a_reason_to_end_may_come_at_any_moment() -> None:
    for run in RUNS:
        after, _ = step(run, Event.FAILED, 0.0, Patience())
        assert after.stage is not Stage.RUNNING


def test_the_driver_may_die_at_any_moment() -> None:
    for run in RUNS:
        if run.driver:
            after, _ = step(run, Event.DRIVER_GONE, 0.0, Patience())
            assert not after.driver or after.stage is Stage.ENDED


def test_what_cannot_happen_is_called_a_bug() -> None:
    with pytest.raises(Bug, match="opening"):
        step(Run(), Event.CARDS_GONE, 0.0, Patience())
