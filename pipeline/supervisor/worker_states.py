"""The lives of a worker and of a run, as pure tables.

Every step is (state, event, now) -> (state, actions); nothing here starts a
process, reads a clock or waits, so every path is tested without either.

Rules of both tables:
 - A pair that stands in the table is allowed. What a child says out of turn
   (`SAID`) is ignored, for a child is not believed. Any other pair is a bug of
   ours and raises Bug.
 - A state that waits has a deadline; the event DEADLINE comes when it passes.

Guarantees (tests in tests/pipeline/supervisor/test_worker_states.py):
 - a worker that dies more than `intensity` times in `period` is given up, one that
   dies less often never is (test_given_up_exactly_when_intensity_is_exceeded)
 - a silent worker gets ABRT, then KILL (test_silence_is_met_by_abort_then_kill)
 - from every reachable state of a worker, STOP and the passing of deadlines lead
   to an end (test_every_slot_can_be_stopped)
 - from every reachable state of a run, the same (test_every_run_ends)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ringline.shm.errors import Bug


class Phase(enum.Enum):
    """Where a worker is in its life."""

    IDLE = "idle"  # nothing started yet
    PREPARING = "preparing"  # process started: imports and compiles the plugin
    SETTING_UP = "setting up"
    RUNNING = "running"
    ABORTING = "aborting"  # it was silent or late: ABRT sent
    KILLING = "killing"  # KILL sent
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

    RINGS = "rings"  # make the rings of `generation`, have the driver take them
    NO_RINGS = "no rings"  # have the driver settle the queue and give it up
    BLANK_STATE = "blank state"
    SPAWN = "spawn"
    TELL_STOP = "tell stop"
    ABORT = "abort"
    KILL = "kill"
    REFUSE = "refuse"  # it failed before it ever served: the run must not start


SAID = frozenset({WorkerEvent.PREPARED, WorkerEvent.READY, WorkerEvent.FAILED})


@dataclass(frozen=True)
class RestartPolicy:
    """How patient the supervisor is. All times in seconds."""

    intensity: int = 5
    period: float = 30.0
    prepare: float = 60.0  # numba without its cache needs some seconds, a busy machine more
    setup: float = 10.0
    grace: float = 0.5  # from ABRT to KILL: time for a traceback
    stop: float = 2.0
    backoff: float = 0.1  # before the second restart; doubles
    backoff_most: float = 5.0
    blank_after: int = 3  # deaths within `period` after which named state is suspected


@dataclass(frozen=True)
class WorkerState:
    """A worker. `deaths` are the times of those within the period."""

    phase: Phase = Phase.IDLE
    generation: int = 0
    deadline: float | None = None
    deaths: tuple[float, ...] = ()
    restarts: int = 0
    served: bool = False  # was ready at least once

    @property
    def alive(self) -> bool:
        """Whether there is a process whose exit is to come."""
        return self.phase not in (Phase.IDLE, Phase.BACKOFF, Phase.STOPPED, Phase.GIVEN_UP)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.phase in (Phase.STOPPED, Phase.GIVEN_UP)


Transition = tuple[WorkerState, tuple[WorkerAction, ...]]
Step = Callable[[WorkerState, float, RestartPolicy], Transition]


def _to(phase: Phase, limit: str | None, *actions: WorkerAction) -> Step:
    """A row that changes the phase; its deadline is `policy.<limit>` from now."""

    def row(worker: WorkerState, now: float, policy: RestartPolicy) -> Transition:
        deadline = None if limit is None else now + getattr(policy, limit)
        return replace(worker, phase=phase, deadline=deadline), actions

    return row


def _start(worker: WorkerState, now: float, policy: RestartPolicy) -> Transition:
    started = replace(
        worker,
        phase=Phase.PREPARING,
        generation=worker.generation + 1,
        deadline=now + policy.prepare,
    )
    return started, (WorkerAction.RINGS, WorkerAction.SPAWN)


def _ready(worker: WorkerState, now: float, policy: RestartPolicy) -> Transition:
    return replace(worker, phase=Phase.RUNNING, deadline=None, served=True), ()


def _failed(worker: WorkerState, now: float, policy: RestartPolicy) -> Transition:
    """Its exit follows; until then it has as long as one that was told to stop."""
    waiting = replace(worker, deadline=now + policy.stop)
    return waiting, () if worker.served else (WorkerAction.REFUSE,)


def _died(worker: WorkerState, now: float, policy: RestartPolicy) -> Transition:
    """The exit nobody asked for is certain: settle, then a successor or none."""
    if not worker.served:
        return replace(worker, phase=Phase.STOPPED, deadline=None), (WorkerAction.REFUSE,)
    deaths = (*(at for at in worker.deaths if at > now - policy.period), now)
    if len(deaths) > policy.intensity:
        given_up = replace(worker, phase=Phase.GIVEN_UP, deadline=None, deaths=deaths)
        return given_up, (WorkerAction.NO_RINGS,)
    successor = replace(
        worker, generation=worker.generation + 1, deaths=deaths, restarts=worker.restarts + 1
    )
    actions: tuple[WorkerAction, ...] = (WorkerAction.RINGS,)
    if len(deaths) >= policy.blank_after:
        actions += (WorkerAction.BLANK_STATE,)
    if len(deaths) == 1:
        return (
            replace(successor, phase=Phase.PREPARING, deadline=now + policy.prepare),
            (*actions, WorkerAction.SPAWN),
        )
    wait = min(policy.backoff * 2.0 ** (len(deaths) - 2), policy.backoff_most)
    return replace(successor, phase=Phase.BACKOFF, deadline=now + wait), actions


def _hurry(worker: WorkerState, now: float, policy: RestartPolicy) -> Transition:
    """It was told to stop before, or is being killed: it has little time left, if it had more."""
    soon = now + policy.grace
    if worker.deadline is not None:
        soon = min(soon, worker.deadline)
    return replace(worker, phase=Phase.STOPPING, deadline=soon), ()


_abort = _to(Phase.ABORTING, "grace", WorkerAction.ABORT)
_kill = _to(Phase.KILLING, "stop", WorkerAction.KILL)
_tell_stop = _to(Phase.STOPPING, "stop", WorkerAction.TELL_STOP)
_ended = _to(Phase.STOPPED, None)

WORKER_TABLE: Mapping[tuple[Phase, WorkerEvent], Step] = {
    (Phase.IDLE, WorkerEvent.START): _start,
    (Phase.IDLE, WorkerEvent.STOP): _ended,
    (Phase.PREPARING, WorkerEvent.PREPARED): _to(Phase.SETTING_UP, "setup"),
    (Phase.PREPARING, WorkerEvent.FAILED): _failed,
    (Phase.PREPARING, WorkerEvent.DEADLINE): _abort,
    (Phase.PREPARING, WorkerEvent.EXITED): _died,
    (Phase.PREPARING, WorkerEvent.STOP): _tell_stop,
    (Phase.SETTING_UP, WorkerEvent.READY): _ready,
    (Phase.SETTING_UP, WorkerEvent.FAILED): _failed,
    (Phase.SETTING_UP, WorkerEvent.DEADLINE): _abort,
    (Phase.SETTING_UP, WorkerEvent.EXITED): _died,
    (Phase.SETTING_UP, WorkerEvent.STOP): _tell_stop,
    (Phase.RUNNING, WorkerEvent.FAILED): _failed,
    (Phase.RUNNING, WorkerEvent.SILENT): _abort,
    (Phase.RUNNING, WorkerEvent.DEADLINE): _abort,
    (Phase.RUNNING, WorkerEvent.EXITED): _died,
    (Phase.RUNNING, WorkerEvent.STOP): _tell_stop,
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
    (Phase.STOPPED, WorkerEvent.STOP): lambda worker, now, policy: (worker, ()),
    (Phase.GIVEN_UP, WorkerEvent.STOP): lambda worker, now, policy: (worker, ()),
}


def step_worker(
    worker: WorkerState, event: WorkerEvent, now: float, policy: RestartPolicy
) -> Transition:
    """The worker after `event`, and what to do, in order."""
    row = WORKER_TABLE.get((worker.phase, event))
    if row is not None:
        return row(worker, now, policy)
    if event in SAID:
        return worker, ()
    raise Bug(f"event '{event.value}' cannot happen to a worker that is {worker.phase.value}")


@dataclass(frozen=True)
class Heartbeat:
    """The heartbeat of a process as the supervisor saw it: its value, how long it stood still.

    Time passes only while the supervisor looks: when a machine loses its
    processor for a second, everybody was silent and nobody is at fault.
    """

    value: int = -1
    seen: float = 0.0
    silent: float = 0.0

    def look(self, value: int, now: float, longest: float) -> Heartbeat:
        """After one look; no look counts for more than `longest` seconds."""
        if value != self.value:
            return Heartbeat(value, now)
        return Heartbeat(value, now, self.silent + min(now - self.seen, longest))
