"""The course of a run, as a pure table: opening, beginning, running, draining, and the one
way to the end.

Cards receive nothing before every worker is ready: what came earlier would find full
rings, and be lost.

The end is always the same sequence, however a run gets there, so that nothing
is forgotten on a rare path:

    (drain) -> workers gone -> driver gone -> cards gone -> books settled -> finished

A driver that dies skips its own turn and nothing else. Conditions such as
WORKERS_GONE are told by the supervisor whenever they hold, also at once.

The rules for pairs that are not in the table are those of `lifecycle`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ringline.shm.errors import Bug


class Stage(enum.Enum):
    """Where a run is in its course."""

    OPENING = "opening"  # the driver finds its cards, workers prepare
    BEGINNING = "beginning"  # the driver starts its cards
    RUNNING = "running"
    DRAINING = "draining"  # the driver harvests no more; what is in flight goes out
    ABORTING = "aborting the driver"  # it was silent: ABRT sent
    KILLING = "killing the driver"
    RETIRING = "retiring"  # workers were told to stop
    CLOSING = "closing"  # the driver was told to stop
    DISMISSING = "dismissing"  # card processes were told to stop
    ENDED = "ended"


class RunEvent(enum.Enum):
    """What happens to a run."""

    OPENED = "the driver has its cards"
    ALL_READY = "every worker is ready too"
    BEGUN = "the cards receive"
    FAILED = "failed"  # a reason to end that leaves the driver alive
    STOP = "stop"  # asked for; a second one hurries
    DRAINED = "drained"
    DRIVER_CLOSED = "driver closed"  # told to stop, it stopped the cards and closed its books
    DRIVER_SILENT = "driver silent"
    DRIVER_GONE = "driver gone"
    WORKERS_GONE = "workers gone"
    CARDS_GONE = "cards gone"
    DEADLINE = "deadline"


class RunAction(enum.Enum):
    """What the supervisor does, in the order given."""

    BEGIN = "begin"  # have the driver start its cards
    SERVE = "serve"  # everything is up: tell who waits for that
    DRAIN = "drain"
    HURRY = "hurry"
    STOP_WORKERS = "stop workers"
    STOP_DRIVER = "stop driver"
    ABORT_DRIVER = "abort driver"
    KILL_DRIVER = "kill driver"
    STOP_DMA = "stop DMA"
    STOP_CARDS = "stop cards"
    KILL_CARDS = "kill cards"
    SETTLE = "settle"  # the books of a driver that did not close them
    FINISH = "finish"


@dataclass(frozen=True)
class Timeouts:
    """How long each stage may last, in seconds."""

    open: float = 30.0
    drain: float = 5.0
    hurry: float = 0.3
    grace: float = 0.5
    kill: float = 2.0
    retire: float = 5.0  # workers are killed long before: one that survives even that is left
    close: float = 10.0
    dismiss: float = 5.0


@dataclass(frozen=True)
class RunState:
    """A run. `driver` tells whether there is one to be closed."""

    stage: Stage = Stage.OPENING
    deadline: float | None = None
    driver: bool = True
    closed: bool = False  # the driver itself closed the books
    cards_killed: bool = False


Transition = tuple[RunState, tuple[RunAction, ...]]
Step = Callable[[RunState, float, Timeouts], Transition]


def _to(stage: Stage, limit: str | None, *actions: RunAction) -> Step:
    """A row that changes the stage; its deadline is `timeouts.<limit>` from now."""

    def row(run: RunState, now: float, timeouts: Timeouts) -> Transition:
        deadline = None if limit is None else now + getattr(timeouts, limit)
        return replace(run, stage=stage, deadline=deadline), actions

    return row


def _lost(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    """The driver ended unasked. DMA stops before anything else happens to memory."""
    lost = replace(run, driver=False)
    if run.stage is Stage.RETIRING:
        return lost, (RunAction.STOP_DMA,)
    retiring, actions = _retire(lost, now, timeouts)
    return retiring, (RunAction.STOP_DMA, *actions)


def _workers_gone(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    if run.driver:
        return _close(run, now, timeouts)
    return _dismiss(run, now, timeouts)


def _closer_gone(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    if run.closed:
        return _dismiss(replace(run, driver=False), now, timeouts)
    return _lost(run, now, timeouts)


def _dismiss(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    dismissing = replace(run, stage=Stage.DISMISSING, deadline=now + timeouts.dismiss)
    return dismissing, (RunAction.STOP_CARDS,)


def _cards_late(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    """Cards that do not end are killed; one that survives even that is left behind."""
    if run.cards_killed:
        return _finish(run, now, timeouts)
    return replace(run, cards_killed=True, deadline=now + timeouts.kill), (RunAction.KILL_CARDS,)


def _finish(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    actions = (RunAction.FINISH,) if run.closed else (RunAction.SETTLE, RunAction.FINISH)
    return replace(run, stage=Stage.ENDED, deadline=None), actions


_retire = _to(Stage.RETIRING, "retire", RunAction.STOP_WORKERS)
_close = _to(Stage.CLOSING, "close", RunAction.STOP_DRIVER)
_abort = _to(Stage.ABORTING, "grace", RunAction.ABORT_DRIVER)
_kill = _to(Stage.KILLING, "kill", RunAction.KILL_DRIVER)


def _closed(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    return replace(run, closed=True), ()


def _stay(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    return run, ()


def _hurry_drain(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    """A key held down must not put off what the second signal brought near."""
    if run.deadline is not None and run.deadline <= now + timeouts.hurry:
        return run, ()
    return replace(run, deadline=now + timeouts.hurry), (RunAction.HURRY,)


def _hurry_workers(run: RunState, now: float, timeouts: Timeouts) -> Transition:
    return run, (RunAction.STOP_WORKERS,)


RUN_TABLE: Mapping[tuple[Stage, RunEvent], Step] = {
    (Stage.OPENING, RunEvent.OPENED): lambda run, now, timeouts: (replace(run, deadline=None), ()),
    (Stage.OPENING, RunEvent.ALL_READY): _to(Stage.BEGINNING, "open", RunAction.BEGIN),
    (Stage.OPENING, RunEvent.FAILED): _retire,
    (Stage.OPENING, RunEvent.STOP): _retire,
    (Stage.OPENING, RunEvent.DEADLINE): _retire,
    (Stage.OPENING, RunEvent.DRIVER_GONE): _lost,
    (Stage.BEGINNING, RunEvent.BEGUN): _to(Stage.RUNNING, None, RunAction.SERVE),
    (Stage.BEGINNING, RunEvent.FAILED): _retire,
    (Stage.BEGINNING, RunEvent.STOP): _retire,
    (Stage.BEGINNING, RunEvent.DEADLINE): _retire,
    (Stage.BEGINNING, RunEvent.DRIVER_GONE): _lost,
    (Stage.RUNNING, RunEvent.FAILED): _retire,
    (Stage.RUNNING, RunEvent.STOP): _to(Stage.DRAINING, "drain", RunAction.DRAIN),
    (Stage.RUNNING, RunEvent.DRIVER_SILENT): _abort,
    (Stage.RUNNING, RunEvent.DRIVER_GONE): _lost,
    (Stage.DRAINING, RunEvent.FAILED): _retire,
    (Stage.DRAINING, RunEvent.STOP): _hurry_drain,
    (Stage.DRAINING, RunEvent.DRAINED): _retire,
    (Stage.DRAINING, RunEvent.DEADLINE): _retire,
    (Stage.DRAINING, RunEvent.DRIVER_SILENT): _abort,
    (Stage.DRAINING, RunEvent.DRIVER_GONE): _lost,
    (Stage.ABORTING, RunEvent.FAILED): _stay,
    (Stage.ABORTING, RunEvent.STOP): _stay,
    (Stage.ABORTING, RunEvent.DEADLINE): _kill,
    (Stage.ABORTING, RunEvent.DRIVER_GONE): _lost,
    (Stage.KILLING, RunEvent.FAILED): _stay,
    (Stage.KILLING, RunEvent.STOP): _stay,
    (Stage.KILLING, RunEvent.DEADLINE): _lost,
    (Stage.KILLING, RunEvent.DRIVER_GONE): _lost,
    (Stage.RETIRING, RunEvent.FAILED): _stay,
    (Stage.RETIRING, RunEvent.STOP): _hurry_workers,
    (Stage.RETIRING, RunEvent.DRIVER_GONE): _lost,
    (Stage.RETIRING, RunEvent.WORKERS_GONE): _workers_gone,
    (Stage.RETIRING, RunEvent.DEADLINE): _workers_gone,
    (Stage.CLOSING, RunEvent.FAILED): _stay,
    (Stage.CLOSING, RunEvent.STOP): _stay,
    (Stage.CLOSING, RunEvent.DRIVER_CLOSED): _closed,
    (Stage.CLOSING, RunEvent.DEADLINE): _abort,
    (Stage.CLOSING, RunEvent.DRIVER_GONE): _closer_gone,
    (Stage.DISMISSING, RunEvent.FAILED): _stay,
    (Stage.DISMISSING, RunEvent.STOP): _stay,
    (Stage.DISMISSING, RunEvent.CARDS_GONE): _finish,
    (Stage.DISMISSING, RunEvent.DEADLINE): _cards_late,
    (Stage.DISMISSING, RunEvent.DRIVER_GONE): _stay,
    (Stage.ENDED, RunEvent.FAILED): _stay,
    (Stage.ENDED, RunEvent.STOP): _stay,
    (Stage.ENDED, RunEvent.DRIVER_GONE): _stay,
}
SAID = frozenset({RunEvent.DRAINED, RunEvent.DRIVER_CLOSED})


def step_run(run: RunState, event: RunEvent, now: float, timeouts: Timeouts) -> Transition:
    """The run after `event`, and what to do, in order."""
    row = RUN_TABLE.get((run.stage, event))
    if row is not None:
        return row(run, now, timeouts)
    if event in SAID:
        return run, ()
    raise Bug(f"event '{event.value}' cannot happen to a run that is {run.stage.value}")
