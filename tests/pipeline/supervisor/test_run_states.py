"""Guarantees of the run table, tested without a process and without a clock."""

from __future__ import annotations

import pytest

from ringline.pipeline.supervisor.run_states import (
    RUN_TABLE,
    RunAction,
    RunEvent,
    RunState,
    Stage,
    Timeouts,
    step_run,
)
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.shm.errors import Bug


def run_after(run: RunState, *events: RunEvent) -> tuple[RunState, list[RunAction]]:
    done: list[RunAction] = []
    for event in events:
        run, actions = step_run(run, event, 0.0, Timeouts())
        done += actions
    return run, done


def test_an_orderly_run_does_everything_once_in_order() -> None:
    run, done = run_after(
        RunState(),
        RunEvent.OPENED,
        RunEvent.ALL_READY,
        RunEvent.BEGUN,
        RunEvent.STOP,
        RunEvent.DRAINED,
        RunEvent.WORKERS_GONE,
        RunEvent.DRIVER_CLOSED,
        RunEvent.DRIVER_GONE,
        RunEvent.CARDS_GONE,
    )
    assert run.stage is Stage.ENDED
    assert done == [
        RunAction.BEGIN,
        RunAction.SERVE,
        RunAction.DRAIN,
        RunAction.STOP_WORKERS,
        RunAction.STOP_DRIVER,
        RunAction.STOP_CARDS,
        RunAction.FINISH,
    ]


def test_a_dead_driver_stops_dma_first_and_its_books_are_settled() -> None:
    run, _ = run_after(RunState(), RunEvent.OPENED, RunEvent.ALL_READY, RunEvent.BEGUN)
    run, done = run_after(run, RunEvent.DRIVER_GONE, RunEvent.WORKERS_GONE, RunEvent.CARDS_GONE)
    assert run.stage is Stage.ENDED
    assert done == [
        RunAction.STOP_DMA,
        RunAction.STOP_WORKERS,
        RunAction.STOP_CARDS,
        RunAction.SETTLE,
        RunAction.FINISH,
    ]


def test_a_driver_that_ends_without_closing_its_books_has_them_settled() -> None:
    run, _ = run_after(
        RunState(),
        RunEvent.OPENED,
        RunEvent.ALL_READY,
        RunEvent.BEGUN,
        RunEvent.STOP,
        RunEvent.DRAINED,
        RunEvent.WORKERS_GONE,
    )
    run, done = run_after(run, RunEvent.DRIVER_GONE, RunEvent.WORKERS_GONE, RunEvent.CARDS_GONE)
    assert run.stage is Stage.ENDED
    assert RunAction.STOP_DMA in done
    assert done[-2:] == [RunAction.SETTLE, RunAction.FINISH]


def test_a_second_stop_hurries_and_skips_nothing() -> None:
    run, _ = run_after(
        RunState(), RunEvent.OPENED, RunEvent.ALL_READY, RunEvent.BEGUN, RunEvent.STOP
    )
    patient = run.deadline
    run, done = run_after(run, RunEvent.STOP)
    assert done == [RunAction.HURRY]
    assert run.deadline is not None
    assert patient is not None
    assert run.deadline < patient
    _, done = run_after(
        run,
        RunEvent.DEADLINE,
        RunEvent.WORKERS_GONE,
        RunEvent.DRIVER_CLOSED,
        RunEvent.DRIVER_GONE,
        RunEvent.CARDS_GONE,
    )
    assert done == [
        RunAction.STOP_WORKERS,
        RunAction.STOP_DRIVER,
        RunAction.STOP_CARDS,
        RunAction.FINISH,
    ]


def test_repeated_stops_do_not_extend_the_drain() -> None:
    run, _ = run_after(
        RunState(),
        RunEvent.OPENED,
        RunEvent.ALL_READY,
        RunEvent.BEGUN,
        RunEvent.STOP,
        RunEvent.STOP,
    )
    soon = run.deadline
    run, actions = step_run(run, RunEvent.STOP, 0.1, Timeouts())
    assert (run.deadline, actions) == (soon, ())


def test_workers_have_the_time_to_be_killed() -> None:
    policy = RestartPolicy()
    assert Timeouts().retire > 2 * policy.stop + policy.grace, (
        "there must be time to send Stop, then SIGKILL"
    )


def test_a_silent_driver_is_aborted_then_killed() -> None:
    run, _ = run_after(RunState(), RunEvent.OPENED, RunEvent.ALL_READY, RunEvent.BEGUN)
    run, done = run_after(run, RunEvent.DRIVER_SILENT, RunEvent.DEADLINE, RunEvent.DRIVER_GONE)
    assert done == [
        RunAction.ABORT_DRIVER,
        RunAction.KILL_DRIVER,
        RunAction.STOP_DMA,
        RunAction.STOP_WORKERS,
    ]


def reachable_runs() -> list[RunState]:
    start = RunState()
    seen, todo = {start}, [start]
    while todo:
        run = todo.pop()
        for event in RunEvent:
            if (run.stage, event) in RUN_TABLE:
                after, _ = step_run(run, event, 0.0, Timeouts())
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return list(seen)


RUNS = reachable_runs()


def test_every_run_ends() -> None:
    """STOP leads to the end even if no child ever answers."""
    for first in RUNS:
        run = first
        stopping = step_run(run, RunEvent.STOP, 0.0, Timeouts())
        run = stopping[0]
        done: list[RunAction] = list(stopping[1])
        for _ in range(12):
            if run.stage is Stage.ENDED:
                break
            run, actions = step_run(run, RunEvent.DEADLINE, 0.0, Timeouts())
            done += actions
        assert run.stage is Stage.ENDED, f"{first} does not end"
        if first.stage is not Stage.ENDED:
            assert done[-1] is RunAction.FINISH


def test_every_stage_that_waits_for_a_child_has_a_deadline() -> None:
    free = {Stage.OPENING, Stage.RUNNING, Stage.ENDED}
    for run in RUNS:
        assert run.stage in free or run.deadline is not None, f"{run} could wait for ever"


def test_books_are_settled_unless_the_driver_closed_them() -> None:
    for run in RUNS:
        if run.stage is Stage.DISMISSING:
            _, actions = step_run(run, RunEvent.CARDS_GONE, 0.0, Timeouts())
            assert (RunAction.SETTLE in actions) != run.closed


def test_a_failure_may_come_at_any_moment() -> None:
    for run in RUNS:
        after, _ = step_run(run, RunEvent.FAILED, 0.0, Timeouts())
        assert after.stage is not Stage.RUNNING


def test_the_driver_may_die_at_any_moment() -> None:
    for run in RUNS:
        if run.driver:
            after, _ = step_run(run, RunEvent.DRIVER_GONE, 0.0, Timeouts())
            assert not after.driver or after.stage is Stage.ENDED


def test_dma_stops_first_in_every_stage_in_which_the_driver_may_die() -> None:
    """Also while the workers retire: the cards of a dead driver still write to memory."""
    stages = set()
    for run in RUNS:
        if run.driver and not run.closed and run.stage is not Stage.ENDED:
            _, actions = step_run(run, RunEvent.DRIVER_GONE, 0.0, Timeouts())
            assert actions[:1] == (RunAction.STOP_DMA,), f"{run} leaves DMA on"
            stages.add(run.stage)
    assert stages == set(Stage) - {Stage.DISMISSING, Stage.ENDED}


def test_an_impossible_event_is_a_bug() -> None:
    with pytest.raises(Bug, match="opening"):
        step_run(RunState(), RunEvent.CARDS_GONE, 0.0, Timeouts())
