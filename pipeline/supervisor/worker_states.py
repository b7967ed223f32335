"""The lives of a worker slot and of a run, as pure tables.

Every step is (state, event, now) -> (state, actions); nothing here starts a
process, reads a clock or waits, so every path is tested without either.

Rules of both tables:
 - A pair that stands in the table is allowed. What a child says out of turn
   (`SAID`) is ignored, for a child is not believed. Any other pair is a bug of
   ours and raises Bug.
 - A state that waits has a deadline; the event DEADLINE comes when it passes.

Guarantees (tests in tests/pipeline/supervisor/test_worker_states.py):
 - a slot that dies more than `intensity` times in `period` is given up, one that
   dies less often never is (test_given_up_exactly_when_intensity_is_exceeded)
 - a silent worker gets ABRT, then KILL (test_silence_is_met_by_abort_then_kill)
 - from every reachable state of a slot, STOP and the passing of deadlines lead
   to an end (test_every_slot_can_be_stopped)
 - from every reachable state of a run, the same (test_every_run_ends)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ringline.shm.errors import Bug


class Phase(enum.Enum):
    """Where a worker slot is in its life."""

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


class Event(enum.Enum):
    """What happens to a slot."""

    START = "start"
    PREPARED = "prepared"
    READY = "ready"
    FAILED = "failed"
    SILENT = "silent"
    DEADLINE = "deadline"
    EXITED = "exited"
    STOP = "stop"


class Action(enum.Enum):
    """What the supervisor does to a slot, in the order given."""

    RINGS = "rings"  # make the rings of `generation`, have the driver take them
    NO_RINGS = "no rings"  # have the driver settle the queue and give it up
    BLANK_STATE = "blank state"
    SPAWN = "spawn"
    TELL_STOP = "tell stop"
    ABORT = "abort"
    KILL = "kill"
    REFUSE = "refuse"  # it failed before it ever served: the run must not start


SAID = frozenset({Event.PREPARED, Event.READY, Event.FAILED})


@dataclass(frozen=True)
class Policy:
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
class Slot:
    """A worker slot. `deaths` are the times of those within the period."""

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


Result = tuple[Slot, tuple[Action, ...]]
Step = Callable[[Slot, float, Policy], Result]


def _to(phase: Phase, patience: str | None, *actions: Action) -> Step:
    """A row that changes the phase and waits as long as `policy.<patience>`."""

    def step(slot: Slot, now: float, policy: Policy) -> Result:
        deadline = None if patience is None else now + getattr(policy, patience)
        return replace(slot, phase=phase, deadline=deadline), actions

    return step


def _start(slot: Slot, now: float, policy: Policy) -> Result:
    started = replace(
        slot, phase=Phase.PREPARING, generation=slot.generation + 1, deadline=now + policy.prepare
    )
    return started, (Action.RINGS, Action.SPAWN)


def _ready(slot: Slot, now: float, policy: Policy) -> Result:
    return replace(slot, phase=Phase.RUNNING, deadline=None, served=True), ()


def _failed(slot: Slot, now: float, policy: Policy) -> Result:
    """Its exit follows; until then it has as long as one that was told to stop."""
    waiting = replace(slot, deadline=now + policy.stop)
    return waiting, () if slot.served else (Action.REFUSE,)


def _died(slot: Slot, now: float, policy: Policy) -> Result:
    """The exit nobody asked for is certain: settle, then a successor or none."""
    if not slot.served:
        return replace(slot, phase=Phase.STOPPED, deadline=None), (Action.REFUSE,)
    deaths = (*(at for at in slot.deaths if at > now - policy.period), now)
    if len(deaths) > policy.intensity:
        given_up = replace(slot, phase=Phase.GIVEN_UP, deadline=None, deaths=deaths)
        return given_up, (Action.NO_RINGS,)
    successor = replace(
        slot, generation=slot.generation + 1, deaths=deaths, restarts=slot.restarts + 1
    )
    actions: tuple[Action, ...] = (Action.RINGS,)
    if len(deaths) >= policy.blank_after:
        actions += (Action.BLANK_STATE,)
    if len(deaths) == 1:
        return (
            replace(successor, phase=Phase.PREPARING, deadline=now + policy.prepare),
            (*actions, Action.SPAWN),
        )
    wait = min(policy.backoff * 2.0 ** (len(deaths) - 2), policy.backoff_most)
    return replace(successor, phase=Phase.BACKOFF, deadline=now + wait), actions


def _hurry(slot: Slot, now: float, policy: Policy) -> Result:
    """It was told to stop before, or is being killed: it has little time left, if it had more."""
    soon = now + policy.grace
    if slot.deadline is not None:
        soon = min(soon, slot.deadline)
    return replace(slot, phase=Phase.STOPPING, deadline=soon), ()


_abort = _to(Phase.ABORTING, "grace", Action.ABORT)
_kill = _to(Phase.KILLING, "stop", Action.KILL)
_tell_stop = _to(Phase.STOPPING, "stop", Action.TELL_STOP)
_ended = _to(Phase.STOPPED, None)

SLOT_TABLE: Mapping[tuple[Phase, Event], Step] = {
    (Phase.IDLE, Event.START): _start,
    (Phase.IDLE, Event.STOP): _ended,
    (Phase.PREPARING, Event.PREPARED): _to(Phase.SETTING_UP, "setup"),
    (Phase.PREPARING, Event.FAILED): _failed,
    (Phase.PREPARING, Event.DEADLINE): _abort,
    (Phase.PREPARING, Event.EXITED): _died,
    (Phase.PREPARING, Event.STOP): _tell_stop,
    (Phase.SETTING_UP, Event.READY): _ready,
    (Phase.SETTING_UP, Event.FAILED): _failed,
    (Phase.SETTING_UP, Event.DEADLINE): _abort,
    (Phase.SETTING_UP, Event.EXITED): _died,
    (Phase.SETTING_UP, Event.STOP): _tell_stop,
    (Phase.RUNNING, Event.FAILED): _failed,
    (Phase.RUNNING, Event.SILENT): _abort,
    (Phase.RUNNING, Event.DEADLINE): _abort,
    (Phase.RUNNING, Event.EXITED): _died,
    (Phase.RUNNING, Event.STOP): _tell_stop,
    (Phase.ABORTING, Event.DEADLINE): _kill,
    (Phase.ABORTING, Event.EXITED): _died,
    (Phase.ABORTING, Event.STOP): _hurry,
    (Phase.KILLING, Event.DEADLINE): _kill,
    (Phase.KILLING, Event.EXITED): _died,
    (Phase.KILLING, Event.STOP): _hurry,
    (Phase.BACKOFF, Event.DEADLINE): _to(Phase.PREPARING, "prepare", Action.SPAWN),
    (Phase.BACKOFF, Event.STOP): _ended,
    (Phase.STOPPING, Event.DEADLINE): _to(Phase.STOPPING, "stop", Action.KILL),
    (Phase.STOPPING, Event.EXITED): _ended,
    (Phase.STOPPING, Event.STOP): _hurry,
    (Phase.STOPPED, Event.STOP): lambda slot, now, policy: (slot, ()),
    (Phase.GIVEN_UP, Event.STOP): lambda slot, now, policy: (slot, ()),
}


def step(slot: Slot, event: Event, now: float, policy: Policy) -> Result:
    """The slot after `event`, and what to do, in order."""
    row = SLOT_TABLE.get((slot.phase, event))
    if row is not None:
        return row(slot, now, policy)
    if event in SAID:
        return slot, ()
    raise Bug(f"event '{event.value}' cannot happen to a worker slot that is {slot.phase.value}")


@dataclass(frozen=True)
class Beat:
    """The heartbeat of a process as the supervisor saw it: its value, how long it stood still.

    Time passes only while the supervisor looks: when a machine loses its
    processor for a second, everybody was silent and nobody is at fault.
    """

    value: int = -1
    seen: float = 0.0
    silent: float = 0.0

    def look(self, value: int, now: float, longest: float) -> Beat:
        """After one look; no look counts for more than `longest` seconds."""
        if value != self.value:
            return Beat(value, now)
        return Beat(value, now, self.silent + min(now - self.seen, longest))
