"""Promises of the slot table: the life of a worker, without a process and without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.supervisor.worker_states import (
    SAID,
    SLOT_TABLE,
    Action,
    Beat,
    Event,
    Phase,
    Policy,
    Slot,
    step,
)
from ringline.shm.errors import Bug

POLICY = Policy()


def told(slot: Slot, *events: tuple[Event, float]) -> tuple[Slot, list[Action]]:
    """The slot after these events, and everything that was to be done."""
    done: list[Action] = []
    for event, now in events:
        slot, actions = step(slot, event, now, POLICY)
        done += actions
    return slot, done


def running(now: float = 0.0) -> Slot:
    slot, _ = told(Slot(), (Event.START, now), (Event.PREPARED, now), (Event.READY, now))
    assert slot.phase is Phase.RUNNING
    return slot


def back_to_running(slot: Slot, now: float) -> Slot:
    """Through backoff, preparing and set-up again."""
    if slot.phase is Phase.BACKOFF:
        assert slot.deadline is not None
        slot, actions = step(slot, Event.DEADLINE, slot.deadline, POLICY)
        assert actions == (Action.SPAWN,)
    return told(slot, (Event.PREPARED, now), (Event.READY, now))[0]


def test_start_makes_rings_before_the_worker() -> None:
    slot, done = told(Slot(), (Event.START, 0.0))
    assert done == [Action.RINGS, Action.SPAWN]
    assert slot.generation == 1
    assert slot.deadline == POLICY.prepare


def test_first_death_is_answered_at_once_with_a_new_generation() -> None:
    slot, done = told(running(), (Event.EXITED, 10.0))
    assert done == [Action.RINGS, Action.SPAWN]
    assert (slot.phase, slot.generation, slot.restarts) == (Phase.PREPARING, 2, 1)


def test_later_deaths_wait_longer_each_time() -> None:
    slot, now, waits = running(), 1.0, []
    for _ in range(POLICY.intensity):
        slot, actions = step(slot, Event.EXITED, now, POLICY)
        assert actions[0] is Action.RINGS, "the queue is settled before any waiting"
        waits.append(slot.deadline - now if slot.phase is Phase.BACKOFF and slot.deadline else 0.0)
        slot = back_to_running(slot, now)
    assert waits[0] == 0.0
    assert waits[1:] == [pytest.approx(POLICY.backoff * 2**i) for i in range(len(waits) - 1)]
    assert max(waits) <= POLICY.backoff_most


def test_deaths_long_ago_are_forgiven() -> None:
    slot, now = running(), 0.0
    for _ in range(50):
        now += POLICY.period + 0.1
        slot, actions = step(slot, Event.EXITED, now, POLICY)
        assert actions == (Action.RINGS, Action.SPAWN)
        slot = back_to_running(slot, now)
    assert slot.restarts == 50


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=40))
def test_given_up_exactly_when_intensity_is_exceeded(gaps: list[float]) -> None:
    slot, now = running(), 0.0
    deaths: list[float] = []
    for gap in gaps:
        now += gap
        deaths = [at for at in deaths if at > now - POLICY.period] + [now]
        slot, actions = step(slot, Event.EXITED, now, POLICY)
        if len(deaths) > POLICY.intensity:
            assert actions == (Action.NO_RINGS,)
            assert slot.phase is Phase.GIVEN_UP
            return
        assert slot.phase is not Phase.GIVEN_UP
        slot = back_to_running(slot, now)


def test_state_is_blanked_after_repeated_crashes_only() -> None:
    slot, blanked = running(), []
    for death in range(1, POLICY.intensity + 1):
        slot, actions = step(slot, Event.EXITED, 1.0, POLICY)
        blanked.append(Action.BLANK_STATE in actions)
        assert blanked[-1] == (death >= POLICY.blank_after)
        slot = back_to_running(slot, 1.0)


@pytest.mark.parametrize("how", [Event.FAILED, Event.EXITED])
@pytest.mark.parametrize("when", [(), (Event.PREPARED,)], ids=["prepare", "setup"])
def test_failing_before_it_ever_served_refuses_the_run(how: Event, when: tuple[Event, ...]) -> None:
    slot, _ = told(Slot(), (Event.START, 0.0), *((event, 0.0) for event in when))
    slot, actions = step(slot, how, 1.0, POLICY)
    assert actions == (Action.REFUSE,)
    if how is Event.FAILED:
        slot, _ = told(slot, (Event.EXITED, 1.1))
    assert slot.phase is Phase.STOPPED


def test_failing_to_set_up_a_successor_is_a_death_like_others() -> None:
    slot, _ = told(running(), (Event.EXITED, 1.0), (Event.FAILED, 1.1))
    slot, actions = step(slot, Event.EXITED, 1.2, POLICY)
    assert slot.phase is Phase.BACKOFF
    assert actions == (Action.RINGS,)


def test_silence_is_met_by_abort_then_kill() -> None:
    slot, actions = step(running(), Event.SILENT, 5.0, POLICY)
    assert actions == (Action.ABORT,)
    assert slot.deadline == 5.0 + POLICY.grace
    slot, actions = step(slot, Event.DEADLINE, 5.5, POLICY)
    assert actions == (Action.KILL,)
    slot, actions = step(slot, Event.EXITED, 5.6, POLICY)
    assert actions == (Action.RINGS, Action.SPAWN)


def test_a_plugin_that_never_gets_ready_is_ended() -> None:
    slot, _ = told(Slot(), (Event.START, 0.0))
    slot, actions = step(slot, Event.DEADLINE, POLICY.prepare, POLICY)
    assert actions == (Action.ABORT,)
    slot, actions = step(slot, Event.EXITED, POLICY.prepare, POLICY)
    assert actions == (Action.REFUSE,)


def reachable(
    start: Slot, advance: Callable[[Slot, Event], Iterator[tuple[Slot, tuple[Action, ...]]]]
) -> list[Slot]:
    seen, todo = {start}, [start]
    while todo:
        slot = todo.pop()
        for event in Event:
            for after, _ in advance(slot, event):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return list(seen)


def allowed(slot: Slot, event: Event) -> Iterator[tuple[Slot, tuple[Action, ...]]]:
    """One step at a standing clock, where the table has a row."""
    if (slot.phase, event) in SLOT_TABLE:
        yield step(slot, event, 0.0, POLICY)


REACHABLE = reachable(Slot(), allowed)


def test_every_phase_is_reachable() -> None:
    assert {slot.phase for slot in REACHABLE} == set(Phase)


def test_every_slot_can_be_stopped() -> None:
    for slot in REACHABLE:
        stopping, actions = step(slot, Event.STOP, 0.0, POLICY)
        assert stopping.over or stopping.deadline is not None, f"{slot} would wait for ever"
        killed = Action.KILL in actions
        if stopping.phase is Phase.STOPPING:
            late, actions = step(stopping, Event.DEADLINE, 9.0, POLICY)
            killed = Action.KILL in actions
            assert killed, f"{slot} would outlive its deadline"
            stopping, _ = step(late, Event.EXITED, 9.1, POLICY)
        assert stopping.over


def test_stop_said_again_never_puts_off_the_end() -> None:
    for slot in REACHABLE:
        stopping, _ = step(slot, Event.STOP, 0.0, POLICY)
        again, _ = step(stopping, Event.STOP, 0.1, POLICY)
        once_more, actions = step(again, Event.STOP, 0.2, POLICY)
        assert (once_more.deadline, actions) == (again.deadline, ())


def test_whoever_waits_has_a_deadline() -> None:
    waiting = set(Phase) - {Phase.IDLE, Phase.RUNNING, Phase.STOPPED, Phase.GIVEN_UP}
    for slot in REACHABLE:
        if slot.phase in waiting:
            assert slot.deadline is not None, f"{slot.phase} without a deadline"
            step(slot, Event.DEADLINE, 1.0, POLICY)


def test_every_exit_of_a_live_process_is_expected() -> None:
    for slot in REACHABLE:
        if slot.alive:
            step(slot, Event.EXITED, 0.0, POLICY)
        else:
            with pytest.raises(Bug):
                step(slot, Event.EXITED, 0.0, POLICY)


def test_what_a_worker_says_out_of_turn_is_ignored() -> None:
    for slot in REACHABLE:
        for event in SAID:
            if (slot.phase, event) not in SLOT_TABLE:
                assert step(slot, event, 0.0, POLICY) == (slot, ())


def test_silence_counts_only_while_the_supervisor_looks() -> None:
    beat = Beat().look(7, 100.0, 0.3)
    beat = beat.look(7, 100.25, 0.3)
    assert beat.silent == pytest.approx(0.25)
    beat = beat.look(7, 200.0, 0.3)
    assert beat.silent == pytest.approx(0.55), "a supervisor that was away blames nobody"
    assert beat.look(8, 200.1, 0.3).silent == 0.0


def test_what_cannot_happen_is_called_a_bug() -> None:
    with pytest.raises(Bug, match="idle"):
        step(Slot(), Event.EXITED, 0.0, POLICY)
