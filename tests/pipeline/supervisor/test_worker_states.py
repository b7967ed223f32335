"""Promises of the worker table: the life of a worker, without a process and without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.supervisor.worker_states import (
    SAID,
    WORKER_TABLE,
    Heartbeat,
    Phase,
    RestartPolicy,
    WorkerAction,
    WorkerEvent,
    WorkerState,
    step_worker,
)
from ringline.shm.errors import Bug

POLICY = RestartPolicy()


def told(
    worker: WorkerState, *events: tuple[WorkerEvent, float]
) -> tuple[WorkerState, list[WorkerAction]]:
    """The worker after these events, and everything that was to be done."""
    done: list[WorkerAction] = []
    for event, now in events:
        worker, actions = step_worker(worker, event, now, POLICY)
        done += actions
    return worker, done


def running(now: float = 0.0) -> WorkerState:
    worker, _ = told(
        WorkerState(),
        (WorkerEvent.START, now),
        (WorkerEvent.PREPARED, now),
        (WorkerEvent.READY, now),
    )
    assert worker.phase is Phase.RUNNING
    return worker


def back_to_running(worker: WorkerState, now: float) -> WorkerState:
    """Through backoff, preparing and set-up again."""
    if worker.phase is Phase.BACKOFF:
        assert worker.deadline is not None
        worker, actions = step_worker(worker, WorkerEvent.DEADLINE, worker.deadline, POLICY)
        assert actions == (WorkerAction.SPAWN,)
    return told(worker, (WorkerEvent.PREPARED, now), (WorkerEvent.READY, now))[0]


def test_start_makes_rings_before_the_worker() -> None:
    worker, done = told(WorkerState(), (WorkerEvent.START, 0.0))
    assert done == [WorkerAction.RINGS, WorkerAction.SPAWN]
    assert worker.generation == 1
    assert worker.deadline == POLICY.prepare


def test_first_death_is_answered_at_once_with_a_new_generation() -> None:
    worker, done = told(running(), (WorkerEvent.EXITED, 10.0))
    assert done == [WorkerAction.RINGS, WorkerAction.SPAWN]
    assert (worker.phase, worker.generation, worker.restarts) == (Phase.PREPARING, 2, 1)


def test_later_deaths_wait_longer_each_time() -> None:
    worker, now, waits = running(), 1.0, []
    for _ in range(POLICY.intensity):
        worker, actions = step_worker(worker, WorkerEvent.EXITED, now, POLICY)
        assert actions[0] is WorkerAction.RINGS, "the queue is settled before any waiting"
        waits.append(
            worker.deadline - now if worker.phase is Phase.BACKOFF and worker.deadline else 0.0
        )
        worker = back_to_running(worker, now)
    assert waits[0] == 0.0
    assert waits[1:] == [pytest.approx(POLICY.backoff * 2**i) for i in range(len(waits) - 1)]
    assert max(waits) <= POLICY.backoff_most


def test_deaths_long_ago_are_forgiven() -> None:
    worker, now = running(), 0.0
    for _ in range(50):
        now += POLICY.period + 0.1
        worker, actions = step_worker(worker, WorkerEvent.EXITED, now, POLICY)
        assert actions == (WorkerAction.RINGS, WorkerAction.SPAWN)
        worker = back_to_running(worker, now)
    assert worker.restarts == 50


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=40))
def test_given_up_exactly_when_intensity_is_exceeded(gaps: list[float]) -> None:
    worker, now = running(), 0.0
    deaths: list[float] = []
    for gap in gaps:
        now += gap
        deaths = [at for at in deaths if at > now - POLICY.period] + [now]
        worker, actions = step_worker(worker, WorkerEvent.EXITED, now, POLICY)
        if len(deaths) > POLICY.intensity:
            assert actions == (WorkerAction.NO_RINGS,)
            assert worker.phase is Phase.GIVEN_UP
            return
        assert worker.phase is not Phase.GIVEN_UP
        worker = back_to_running(worker, now)


def test_state_is_blanked_after_repeated_crashes_only() -> None:
    worker, blanked = running(), []
    for death in range(1, POLICY.intensity + 1):
        worker, actions = step_worker(worker, WorkerEvent.EXITED, 1.0, POLICY)
        blanked.append(WorkerAction.BLANK_STATE in actions)
        assert blanked[-1] == (death >= POLICY.blank_after)
        worker = back_to_running(worker, 1.0)


@pytest.mark.parametrize("how", [WorkerEvent.FAILED, WorkerEvent.EXITED])
@pytest.mark.parametrize("when", [(), (WorkerEvent.PREPARED,)], ids=["prepare", "setup"])
def test_failing_before_it_ever_served_refuses_the_run(
    how: WorkerEvent, when: tuple[WorkerEvent, ...]
) -> None:
    worker, _ = told(WorkerState(), (WorkerEvent.START, 0.0), *((event, 0.0) for event in when))
    worker, actions = step_worker(worker, how, 1.0, POLICY)
    assert actions == (WorkerAction.REFUSE,)
    if how is WorkerEvent.FAILED:
        worker, _ = told(worker, (WorkerEvent.EXITED, 1.1))
    assert worker.phase is Phase.STOPPED


def test_failing_to_set_up_a_successor_is_a_death_like_others() -> None:
    worker, _ = told(running(), (WorkerEvent.EXITED, 1.0), (WorkerEvent.FAILED, 1.1))
    worker, actions = step_worker(worker, WorkerEvent.EXITED, 1.2, POLICY)
    assert worker.phase is Phase.BACKOFF
    assert actions == (WorkerAction.RINGS,)


def test_silence_is_met_by_abort_then_kill() -> None:
    worker, actions = step_worker(running(), WorkerEvent.SILENT, 5.0, POLICY)
    assert actions == (WorkerAction.ABORT,)
    assert worker.deadline == 5.0 + POLICY.grace
    worker, actions = step_worker(worker, WorkerEvent.DEADLINE, 5.5, POLICY)
    assert actions == (WorkerAction.KILL,)
    worker, actions = step_worker(worker, WorkerEvent.EXITED, 5.6, POLICY)
    assert actions == (WorkerAction.RINGS, WorkerAction.SPAWN)


def test_a_plugin_that_never_gets_ready_is_ended() -> None:
    worker, _ = told(WorkerState(), (WorkerEvent.START, 0.0))
    worker, actions = step_worker(worker, WorkerEvent.DEADLINE, POLICY.prepare, POLICY)
    assert actions == (WorkerAction.ABORT,)
    worker, actions = step_worker(worker, WorkerEvent.EXITED, POLICY.prepare, POLICY)
    assert actions == (WorkerAction.REFUSE,)


def reachable(
    start: WorkerState,
    advance: Callable[
        [WorkerState, WorkerEvent], Iterator[tuple[WorkerState, tuple[WorkerAction, ...]]]
    ],
) -> list[WorkerState]:
    seen, todo = {start}, [start]
    while todo:
        worker = todo.pop()
        for event in WorkerEvent:
            for after, _ in advance(worker, event):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return list(seen)


def allowed(
    worker: WorkerState, event: WorkerEvent
) -> Iterator[tuple[WorkerState, tuple[WorkerAction, ...]]]:
    """One step_worker at a standing clock, where the table has a row."""
    if (worker.phase, event) in WORKER_TABLE:
        yield step_worker(worker, event, 0.0, POLICY)


REACHABLE = reachable(WorkerState(), allowed)


def test_every_phase_is_reachable() -> None:
    assert {worker.phase for worker in REACHABLE} == set(Phase)


def test_every_slot_can_be_stopped() -> None:
    for worker in REACHABLE:
        stopping, actions = step_worker(worker, WorkerEvent.STOP, 0.0, POLICY)
        assert stopping.over or stopping.deadline is not None, f"{worker} would wait for ever"
        killed = WorkerAction.KILL in actions
        if stopping.phase is Phase.STOPPING:
            late, actions = step_worker(stopping, WorkerEvent.DEADLINE, 9.0, POLICY)
            killed = WorkerAction.KILL in actions
            assert killed, f"{worker} would outlive its deadline"
            stopping, _ = step_worker(late, WorkerEvent.EXITED, 9.1, POLICY)
        assert stopping.over


def test_stop_said_again_never_puts_off_the_end() -> None:
    for worker in REACHABLE:
        stopping, _ = step_worker(worker, WorkerEvent.STOP, 0.0, POLICY)
        again, _ = step_worker(stopping, WorkerEvent.STOP, 0.1, POLICY)
        once_more, actions = step_worker(again, WorkerEvent.STOP, 0.2, POLICY)
        assert (once_more.deadline, actions) == (again.deadline, ())


def test_whoever_waits_has_a_deadline() -> None:
    waiting = set(Phase) - {Phase.IDLE, Phase.RUNNING, Phase.STOPPED, Phase.GIVEN_UP}
    for worker in REACHABLE:
        if worker.phase in waiting:
            assert worker.deadline is not None, f"{worker.phase} without a deadline"
            step_worker(worker, WorkerEvent.DEADLINE, 1.0, POLICY)


def test_every_exit_of_a_live_process_is_expected() -> None:
    for worker in REACHABLE:
        if worker.alive:
            step_worker(worker, WorkerEvent.EXITED, 0.0, POLICY)
        else:
            with pytest.raises(Bug):
                step_worker(worker, WorkerEvent.EXITED, 0.0, POLICY)


def test_what_a_worker_says_out_of_turn_is_ignored() -> None:
    for worker in REACHABLE:
        for event in SAID:
            if (worker.phase, event) not in WORKER_TABLE:
                assert step_worker(worker, event, 0.0, POLICY) == (worker, ())


def test_silence_counts_only_while_the_supervisor_looks() -> None:
    beat = Heartbeat().look(7, 100.0, 0.3)
    beat = beat.look(7, 100.25, 0.3)
    assert beat.silent == pytest.approx(0.25)
    beat = beat.look(7, 200.0, 0.3)
    assert beat.silent == pytest.approx(0.55), "a supervisor that was away blames nobody"
    assert beat.look(8, 200.1, 0.3).silent == 0.0


def test_what_cannot_happen_is_called_a_bug() -> None:
    with pytest.raises(Bug, match="idle"):
        step_worker(WorkerState(), WorkerEvent.EXITED, 0.0, POLICY)
