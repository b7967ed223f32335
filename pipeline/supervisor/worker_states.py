"""The states of a worker, as a pure table: (state, event, now) -> (state, actions).

Nothing here starts a process, reads a clock or waits, so tests can take every path.

A pair of phase and event that is in the table is allowed. If a worker sends an event at the
wrong time (`SENT_BY_WORKER`), the event is ignored, because workers are not trusted. Any
other pair is an error in ringline and raises Bug.

Guarantees (tests in tests/pipeline/supervisor/test_worker_states.py):
 - a worker that dies more than `intensity` times in `period` is given up, one that dies
   less often never is (test_given_up_exactly_when_intensity_is_exceeded)
 - a silent worker gets SIGABRT, then SIGKILL (test_silence_is_met_by_abort_then_kill)
 - a phase that waits for something has a deadline (test_every_phase_that_waits_has_a_deadline)
 - from every reachable state, STOP and the passing of deadlines lead to an end
   (test_every_worker_can_be_stopped)
 - what a worker sends at the wrong time is ignored
   (test_messages_at_the_wrong_time_are_ignored)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import Bug


class Phase(enum.Enum):
    """What a worker is doing."""

    IDLE = "idle"  # not started yet
    PREPARING = "preparing"  # the process loads and compiles the plugin
    SETTING_UP = "setting up"
    RUNNING = "running"
    ABORTING = "aborting"  # it was silent or late: SIGABRT is sent
    KILLING = "killing"  # SIGKILL is sent
    BACKOFF = "waiting to restart"
    STOPPING = "stopping"  # told to stop
    STOPPED = "stopped"
    GIVEN_UP = "given up"


class WorkerEvent(enum.Enum):
    """What happens to a worker."""

    START = "start"
    PREPARED = "prepared"
    READY = "ready"
    FAILED = "failed"
    SILENT = "silent"
    DEADLINE = "deadline"
    EXITED = "exited"
    STOP = "stop"


class WorkerAction(enum.Enum):
    """What the supervisor does to a worker, in the order given."""

    RINGS = "rings"  # make the rings of `generation` and give them to the driver
    NO_RINGS = "no rings"  # make the driver settle the queue and give it up
    BLANK_STATE = "blank state"  # clear the named state of the plugin
    SPAWN = "spawn"
    SEND_STOP = "send stop"
    ABORT = "abort"
    KILL = "kill"
    REFUSE = "refuse"  # it failed before it was ready: the run must not start


SENT_BY_WORKER = frozenset({WorkerEvent.PREPARED, WorkerEvent.READY, WorkerEvent.FAILED})


@dataclass(frozen=True)
class RestartPolicy:
    """When workers are restarted, aborted, killed and given up. All times in seconds."""

    intensity: int = 5
    period: float = 30.0
    prepare: float = deadlines.WORKER_PREPARE
    long: float = deadlines.WORKER_LONG
    setup: float = deadlines.WORKER_SETUP
    grace: float = deadlines.WORKER_GRACE
    stop: float = deadlines.WORKER_STOP
    backoff: float = 0.1  # before the second restart; doubles with each further one
    backoff_max: float = 5.0
    blank_after: int = 3  # deaths in `period` after which each successor starts with blank state


@dataclass(frozen=True)
class WorkerState:
    """The state of one worker. `deaths` are the times of its deaths in the last `period`."""

    phase: Phase = Phase.IDLE
    generation: int = 0
    deadline: float | None = None
    deaths: tuple[float, ...] = ()
    restarts: int = 0
    served: bool = False  # it was ready at least once

    @property
    def alive(self) -> bool:
        """Whether there is a process that has not ended."""
        return self.phase not in (Phase.IDLE, Phase.BACKOFF, Phase.STOPPED, Phase.GIVEN_UP)

    @property
    def over(self) -> bool:
        """Whether the worker will not run again."""
        return self.phase in (Phase.STOPPED, Phase.GIVEN_UP)


WorkerTransition = tuple[WorkerState, tuple[WorkerAction, ...]]
WorkerRow = Callable[[WorkerState, float, RestartPolicy], WorkerTransition]


def _to(phase: Phase, limit: str | None, *actions: WorkerAction) -> WorkerRow:
    """A row that changes the phase, with the deadline `policy.<limit>` seconds from now."""

    def row(state: WorkerState, now: float, policy: RestartPolicy) -> WorkerTransition:
        deadline = None if limit is None else now + getattr(policy, limit)
        return replace(state, phase=phase, deadline=deadline), actions

    return row


def _start(state: WorkerState, now: float, policy: RestartPolicy) -> WorkerTransition:
    started = replace(
        state,
        phase=Phase.PREPARING,
        generation=state.generation + 1,
        deadline=now + policy.prepare,
    )
    return started, (WorkerAction.RINGS, WorkerAction.SPAWN)


def _ready(state: WorkerState, now: float, policy: RestartPolicy) -> WorkerTransition:
    return replace(state, phase=Phase.RUNNING, deadline=None, served=True), ()


def _failed(state: WorkerState, now: float, policy: RestartPolicy) -> WorkerTransition:
    """The worker will exit; it has as much time as one that was told to stop."""
    waiting = replace(state, deadline=now + policy.stop)
    return waiting, () if state.served else (WorkerAction.REFUSE,)


def _died(state: WorkerState, now: float, policy: RestartPolicy) -> WorkerTransition:
    """An unexpected exit: settle the queue, then start a successor or give the queue up."""
    if not state.served:
        return replace(state, phase=Phase.STOPPED, deadline=None), (WorkerAction.REFUSE,)
    deaths = (*(at for at in state.deaths if at > now - policy.period), now)
    if len(deaths) > policy.intensity:
        given_up = replace(state, phase=Phase.GIVEN_UP, deadline=None, deaths=deaths)
        return given_up, (WorkerAction.NO_RINGS,)
    successor = replace(
        state, generation=state.generation + 1, deaths=deaths, restarts=state.restarts + 1
    )
    actions: tuple[WorkerAction, ...] = (WorkerAction.RINGS,)
    if len(deaths) >= policy.blank_after:
        actions += (WorkerAction.BLANK_STATE,)
    if len(deaths) == 1:
        return (
            replace(successor, phase=Phase.PREPARING, deadline=now + policy.prepare),
            (*actions, WorkerAction.SPAWN),
        )
    wait = min(policy.backoff * 2.0 ** (len(deaths) - 2), policy.backoff_max)
    return replace(successor, phase=Phase.BACKOFF, deadline=now + wait), actions


def _hurry(state: WorkerState, now: float, policy: RestartPolicy) -> WorkerTransition:
    """STOP again, or STOP for a worker that is aborted or killed: shorten its time to `grace`."""
    soon = now + policy.grace
    if state.deadline is not None:
        soon = min(soon, state.deadline)
    return replace(state, phase=Phase.STOPPING, deadline=soon), ()


_abort = _to(Phase.ABORTING, "grace", WorkerAction.ABORT)
_kill = _to(Phase.KILLING, "stop", WorkerAction.KILL)
_send_stop = _to(Phase.STOPPING, "stop", WorkerAction.SEND_STOP)
_ended = _to(Phase.STOPPED, None)

WORKER_TABLE: Mapping[tuple[Phase, WorkerEvent], WorkerRow] = {
    (Phase.IDLE, WorkerEvent.START): _start,
    (Phase.IDLE, WorkerEvent.STOP): _ended,
    (Phase.PREPARING, WorkerEvent.PREPARED): _to(Phase.SETTING_UP, "setup"),
    (Phase.PREPARING, WorkerEvent.FAILED): _failed,
    (Phase.PREPARING, WorkerEvent.DEADLINE): _abort,
    (Phase.PREPARING, WorkerEvent.EXITED): _died,
    (Phase.PREPARING, WorkerEvent.STOP): _send_stop,
    (Phase.SETTING_UP, WorkerEvent.READY): _ready,
    (Phase.SETTING_UP, WorkerEvent.FAILED): _failed,
    (Phase.SETTING_UP, WorkerEvent.DEADLINE): _abort,
    (Phase.SETTING_UP, WorkerEvent.EXITED): _died,
    (Phase.SETTING_UP, WorkerEvent.STOP): _send_stop,
    (Phase.RUNNING, WorkerEvent.FAILED): _failed,
    (Phase.RUNNING, WorkerEvent.SILENT): _abort,
    (Phase.RUNNING, WorkerEvent.DEADLINE): _abort,
    (Phase.RUNNING, WorkerEvent.EXITED): _died,
    (Phase.RUNNING, WorkerEvent.STOP): _send_stop,
    (Phase.ABORTING, WorkerEvent.DEADLINE): _kill,
    (Phase.ABORTING, WorkerEvent.EXITED): _died,
    (Phase.ABORTING, WorkerEvent.STOP): _hurry,
    (Phase.KILLING, WorkerEvent.DEADLINE): _kill,
    (Phase.KILLING, WorkerEvent.EXITED): _died,
    (Phase.KILLING, WorkerEvent.STOP): _hurry,
    (Phase.BACKOFF, WorkerEvent.DEADLINE): _to(Phase.PREPARING, "prepare", WorkerAction.SPAWN),
    (Phase.BACKOFF, WorkerEvent.STOP): _ended,
    (Phase.STOPPING, WorkerEvent.DEADLINE): _to(Phase.STOPPING, "stop", WorkerAction.KILL),
    (Phase.STOPPING, WorkerEvent.EXITED): _ended,
    (Phase.STOPPING, WorkerEvent.STOP): _hurry,
    (Phase.STOPPED, WorkerEvent.STOP): lambda state, now, policy: (state, ()),
    (Phase.GIVEN_UP, WorkerEvent.STOP): lambda state, now, policy: (state, ()),
}


def step_worker(
    state: WorkerState, event: WorkerEvent, now: float, policy: RestartPolicy
) -> WorkerTransition:
    """The state after `event`, and the actions to take, in order."""
    row = WORKER_TABLE.get((state.phase, event))
    if row is not None:
        return row(state, now, policy)
    if event in SENT_BY_WORKER:
        return state, ()
    raise Bug(f"event '{event.value}' cannot happen to a worker that is {state.phase.value}")
