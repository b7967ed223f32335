"""Guarantees of the worker table, tested without a process and without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.supervisor.worker_states import (
    SENT_BY_WORKER,
    WORKER_TABLE,
    Phase,
    RestartPolicy,
    WorkerAction,
    WorkerEvent,
    WorkerState,
    step_worker,
)
from ringline.shm.errors import Bug

POLICY = RestartPolicy()


def after_events(
    state: WorkerState, *events: tuple[WorkerEvent, float]
) -> tuple[WorkerState, list[WorkerAction]]:
    """The state after these events, and all actions to take."""
    done: list[WorkerAction] = []
    for event, now in events:
        state, actions = step_worker(state, event, now, POLICY)
        done += actions
    return state, done


def running(now: float = 0.0) -> WorkerState:
    state, _ = after_events(
        WorkerState(),
        (WorkerEvent.START, now),
        (WorkerEvent.PREPARED, now),
        (WorkerEvent.READY, now),
    )
    assert state.phase is Phase.RUNNING
    return state


def back_to_running(state: WorkerState, now: float) -> WorkerState:
    """The state after backoff, preparing and set-up."""
    if state.phase is Phase.BACKOFF:
        assert state.deadline is not None
        state, actions = step_worker(state, WorkerEvent.DEADLINE, state.deadline, POLICY)
        assert actions == (WorkerAction.SPAWN,)
    return after_events(state, (WorkerEvent.PREPARED, now), (WorkerEvent.READY, now))[0]


def test_start_makes_rings_before_the_worker() -> None:
    state, done = after_events(WorkerState(), (WorkerEvent.START, 0.0))
    assert done == [WorkerAction.RINGS, WorkerAction.SPAWN]
    assert state.generation == 1
    assert state.deadline == POLICY.prepare


def test_first_death_is_answered_at_once_with_a_new_generation() -> None:
    state, done = after_events(running(), (WorkerEvent.EXITED, 10.0))
    assert done == [WorkerAction.RINGS, WorkerAction.SPAWN]
    assert (state.phase, state.generation, state.restarts) == (Phase.PREPARING, 2, 1)


def test_later_deaths_wait_longer_each_time() -> None:
    state, now, waits = running(), 1.0, []
    for _ in range(POLICY.intensity):
        state, actions = step_worker(state, WorkerEvent.EXITED, now, POLICY)
        assert actions[0] is WorkerAction.RINGS, "the queue is settled before any waiting"
        waits.append(
            state.deadline - now if state.phase is Phase.BACKOFF and state.deadline else 0.0
        )
        state = back_to_running(state, now)
    assert waits[0] == 0.0
    assert waits[1:] == [pytest.approx(POLICY.backoff * 2**i) for i in range(len(waits) - 1)]
    assert max(waits) <= POLICY.backoff_max


def test_deaths_long_ago_are_forgiven() -> None:
    state, now = running(), 0.0
    for _ in range(50):
        now += POLICY.period + 0.1
        state, actions = step_worker(state, WorkerEvent.EXITED, now, POLICY)
        assert actions == (WorkerAction.RINGS, WorkerAction.SPAWN)
        state = back_to_running(state, now)
    assert state.restarts == 50


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=40))
def test_given_up_exactly_when_intensity_is_exceeded(gaps: list[float]) -> None:
    state, now = running(), 0.0
    deaths: list[float] = []
    for gap in gaps:
        now += gap
        deaths = [at for at in deaths if at > now - POLICY.period] + [now]
        state, actions = step_worker(state, WorkerEvent.EXITED, now, POLICY)
        if len(deaths) > POLICY.intensity:
            assert actions == (WorkerAction.NO_RINGS,)
            assert state.phase is Phase.GIVEN_UP
            return
        assert state.phase is not Phase.GIVEN_UP
        state = back_to_running(state, now)


def test_state_is_blanked_after_repeated_crashes_only() -> None:
    state, blanked = running(), []
    for death in range(1, POLICY.intensity + 1):
        state, actions = step_worker(state, WorkerEvent.EXITED, 1.0, POLICY)
        blanked.append(WorkerAction.BLANK_STATE in actions)
        assert blanked[-1] == (death >= POLICY.blank_after)
        state = back_to_running(state, 1.0)


@pytest.mark.parametrize("how", [WorkerEvent.FAILED, WorkerEvent.EXITED])
@pytest.mark.parametrize("when", [(), (WorkerEvent.PREPARED,)], ids=["prepare", "setup"])
def test_failing_before_it_ever_served_refuses_the_run(
    how: WorkerEvent, when: tuple[WorkerEvent, ...]
) -> None:
    state, _ = after_events(
        WorkerState(), (WorkerEvent.START, 0.0), *((event, 0.0) for event in when)
    )
    state, actions = step_worker(state, how, 1.0, POLICY)
    assert actions == (WorkerAction.REFUSE,)
    if how is WorkerEvent.FAILED:
        state, _ = after_events(state, (WorkerEvent.EXITED, 1.1))
    assert state.phase is Phase.STOPPED


def test_failing_to_set_up_a_successor_is_a_death_like_others() -> None:
    state, _ = after_events(running(), (WorkerEvent.EXITED, 1.0), (WorkerEvent.FAILED, 1.1))
    state, actions = step_worker(state, WorkerEvent.EXITED, 1.2, POLICY)
    assert state.phase is Phase.BACKOFF
    assert actions == (WorkerAction.RINGS,)


def test_silence_is_met_by_abort_then_kill() -> None:
    state, actions = step_worker(running(), WorkerEvent.SILENT, 5.0, POLICY)
    assert actions == (WorkerAction.ABORT,)
    assert state.deadline == 5.0 + POLICY.grace
    state, actions = step_worker(state, WorkerEvent.DEADLINE, 5.5, POLICY)
    assert actions == (WorkerAction.KILL,)
    state, actions = step_worker(state, WorkerEvent.EXITED, 5.6, POLICY)
    assert actions == (WorkerAction.RINGS, WorkerAction.SPAWN)


def test_a_plugin_that_never_gets_ready_is_ended() -> None:
    state, _ = after_events(WorkerState(), (WorkerEvent.START, 0.0))
    state, actions = step_worker(state, WorkerEvent.DEADLINE, POLICY.prepare, POLICY)
    assert actions == (WorkerAction.ABORT,)
    state, actions = step_worker(state, WorkerEvent.EXITED, POLICY.prepare, POLICY)
    assert actions == (WorkerAction.REFUSE,)


def reachable(
    start: WorkerState,
    advance: Callable[
        [WorkerState, WorkerEvent], Iterator[tuple[WorkerState, tuple[WorkerAction, ...]]]
    ],
) -> list[WorkerState]:
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for event in WorkerEvent:
            for after, _ in advance(state, event):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return list(seen)


def allowed(
    state: WorkerState, event: WorkerEvent
) -> Iterator[tuple[WorkerState, tuple[WorkerAction, ...]]]:
    """One step at time 0, if the table has a row for it."""
    if (state.phase, event) in WORKER_TABLE:
        yield step_worker(state, event, 0.0, POLICY)


REACHABLE = reachable(WorkerState(), allowed)


def test_every_phase_is_reachable() -> None:
    assert {state.phase for state in REACHABLE} == set(Phase)


def test_every_worker_can_be_stopped() -> None:
    for state in REACHABLE:
        stopping, actions = step_worker(state, WorkerEvent.STOP, 0.0, POLICY)
        assert stopping.over or stopping.deadline is not None, f"{state} would wait for ever"
        killed = WorkerAction.KILL in actions
        if stopping.phase is Phase.STOPPING:
            late, actions = step_worker(stopping, WorkerEvent.DEADLINE, 9.0, POLICY)
            killed = WorkerAction.KILL in actions
            assert killed, f"{state} would outlive its deadline"
            stopping, _ = step_worker(late, WorkerEvent.EXITED, 9.1, POLICY)
        assert stopping.over


def test_repeated_stops_never_extend_a_deadline() -> None:
    for state in REACHABLE:
        stopping, _ = step_worker(state, WorkerEvent.STOP, 0.0, POLICY)
        again, _ = step_worker(stopping, WorkerEvent.STOP, 0.1, POLICY)
        once_more, actions = step_worker(again, WorkerEvent.STOP, 0.2, POLICY)
        assert (once_more.deadline, actions) == (again.deadline, ())


def test_every_phase_that_waits_has_a_deadline() -> None:
    waiting = set(Phase) - {Phase.IDLE, Phase.RUNNING, Phase.STOPPED, Phase.GIVEN_UP}
    for state in REACHABLE:
        if state.phase in waiting:
            assert state.deadline is not None, f"{state.phase} without a deadline"
            step_worker(state, WorkerEvent.DEADLINE, 1.0, POLICY)


def test_every_exit_of_a_live_process_is_expected() -> None:
    for state in REACHABLE:
        if state.alive:
            step_worker(state, WorkerEvent.EXITED, 0.0, POLICY)
        else:
            with pytest.raises(Bug):
                step_worker(state, WorkerEvent.EXITED, 0.0, POLICY)


def test_messages_at_the_wrong_time_are_ignored() -> None:
    for state in REACHABLE:
        for event in SENT_BY_WORKER:
            if (state.phase, event) not in WORKER_TABLE:
                assert step_worker(state, event, 0.0, POLICY) == (state, ())


def test_an_impossible_event_is_a_bug() -> None:
    with pytest.raises(Bug, match="idle"):
        step_worker(WorkerState(), WorkerEvent.EXITED, 0.0, POLICY)
