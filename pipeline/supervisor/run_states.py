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


class Event(enum.Enum):
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


class Action(enum.Enum):
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
class Patience:
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
class Run:
    """A run. `driver` tells whether there is one to be closed."""

    stage: Stage = Stage.OPENING
    deadline: float | None = None
    driver: bool = True
    closed: bool = False  # the driver itself closed the books
    cards_killed: bool = False


Result = tuple[Run, tuple[Action, ...]]
Step = Callable[[Run, float, Patience], Result]


def _to(stage: Stage, patience: str | None, *actions: Action) -> Step:
    """A row that changes the stage and waits as long as `patience.<name>`."""

    def step(run: Run, now: float, patiences: Patience) -> Result:
        deadline = None if patience is None else now + getattr(patiences, patience)
        return replace(run, stage=stage, deadline=deadline), actions

    return step


def _lost(run: Run, now: float, patience: Patience) -> Result:
    """The driver ended unasked. DMA stops before anything else happens to memory."""
    lost = replace(run, driver=False)
    if run.stage is Stage.RETIRING:
        return lost, (Action.STOP_DMA,)
    retiring, actions = _retire(lost, now, patience)
    return retiring, (Action.STOP_DMA, *actions)


def _workers_gone(run: Run, now: float, patience: Patience) -> Result:
    if run.driver:
        return _close(run, now, patience)
    return _dismiss(run, now, patience)


def _closer_gone(run: Run, now: float, patience: Patience) -> Result:
    if run.closed:
        return _dismiss(replace(run, driver=False), now, patience)
    return _lost(run, now, patience)


def _dismiss(run: Run, now: float, patience: Patience) -> Result:
    dismissing = replace(run, stage=Stage.DISMISSING, deadline=now + patience.dismiss)
    return dismissing, (Action.STOP_CARDS,)


def _cards_late(run: Run, now: float, patience: Patience) -> Result:
    """Cards that do not end are killed; one that survives even that is left behind."""
    if run.cards_killed:
        return _finish(run, now, patience)
    return replace(run, cards_killed=True, deadline=now + patience.kill), (Action.KILL_CARDS,)


def _finish(run: Run, now: float, patience: Patience) -> Result:
    actions = (Action.FINISH,) if run.closed else (Action.SETTLE, Action.FINISH)
    return replace(run, stage=Stage.ENDED, deadline=None), actions


_retire = _to(Stage.RETIRING, "retire", Action.STOP_WORKERS)
_close = _to(Stage.CLOSING, "close", Action.STOP_DRIVER)
_abort = _to(Stage.ABORTING, "grace", Action.ABORT_DRIVER)
_kill = _to(Stage.KILLING, "kill", Action.KILL_DRIVER)


def _closed(run: Run, now: float, patience: Patience) -> Result:
    return replace(run, closed=True), ()


def _stay(run: Run, now: float, patience: Patience) -> Result:
    return run, ()


def _hurry_drain(run: Run, now: float, patience: Patience) -> Result:
    """A key held down must not put off what the second signal brought near."""
    if run.deadline is not None and run.deadline <= now + patience.hurry:
        return run, ()
    return replace(run, deadline=now + patience.hurry), (Action.HURRY,)


def _hurry_workers(run: Run, now: float, patience: Patience) -> Result:
    return run, (Action.STOP_WORKERS,)


TABLE: Mapping[tuple[Stage, Event], Step] = {
    (Stage.OPENING, Event.OPENED): lambda run, now, patience: (replace(run, deadline=None), ()),
    (Stage.OPENING, Event.ALL_READY): _to(Stage.BEGINNING, "open", Action.BEGIN),
    (Stage.OPENING, Event.FAILED): _retire,
    (Stage.OPENING, Event.STOP): _retire,
    (Stage.OPENING, Event.DEADLINE): _retire,
    (Stage.OPENING, Event.DRIVER_GONE): _lost,
    (Stage.BEGINNING, Event.BEGUN): _to(Stage.RUNNING, None, Action.SERVE),
    (Stage.BEGINNING, Event.FAILED): _retire,
    (Stage.BEGINNING, Event.STOP): _retire,
    (Stage.BEGINNING, Event.DEADLINE): _retire,
    (Stage.BEGINNING, Event.DRIVER_GONE): _lost,
    (Stage.RUNNING, Event.FAILED): _retire,
    (Stage.RUNNING, Event.STOP): _to(Stage.DRAINING, "drain", Action.DRAIN),
    (Stage.RUNNING, Event.DRIVER_SILENT): _abort,
    (Stage.RUNNING, Event.DRIVER_GONE): _lost,
    (Stage.DRAINING, Event.FAILED): _retire,
    (Stage.DRAINING, Event.STOP): _hurry_drain,
    (Stage.DRAINING, Event.DRAINED): _retire,
    (Stage.DRAINING, Event.DEADLINE): _retire,
    (Stage.DRAINING, Event.DRIVER_SILENT): _abort,
    (Stage.DRAINING, Event.DRIVER_GONE): _lost,
    (Stage.ABORTING, Event.FAILED): _stay,
    (Stage.ABORTING, Event.STOP): _stay,
    (Stage.ABORTING, Event.DEADLINE): _kill,
    (Stage.ABORTING, Event.DRIVER_GONE): _lost,
    (Stage.KILLING, Event.FAILED): _stay,
    (Stage.KILLING, Event.STOP): _stay,
    (Stage.KILLING, Event.DEADLINE): _lost,
    (Stage.KILLING, Event.DRIVER_GONE): _lost,
    (Stage.RETIRING, Event.FAILED): _stay,
    (Stage.RETIRING, Event.STOP): _hurry_workers,
    (Stage.RETIRING, Event.DRIVER_GONE): _lost,
    (Stage.RETIRING, Event.WORKERS_GONE): _workers_gone,
    (Stage.RETIRING, Event.DEADLINE): _workers_gone,
    (Stage.CLOSING, Event.FAILED): _stay,
    (Stage.CLOSING, Event.STOP): _stay,
    (Stage.CLOSING, Event.DRIVER_CLOSED): _closed,
    (Stage.CLOSING, Event.DEADLINE): _abort,
    (Stage.CLOSING, Event.DRIVER_GONE): _closer_gone,
    (Stage.DISMISSING, Event.FAILED): _stay,
    (Stage.DISMISSING, Event.STOP): _stay,
    (Stage.DISMISSING, Event.CARDS_GONE): _finish,
    (Stage.DISMISSING, Event.DEADLINE): _cards_late,
    (Stage.DISMISSING, Event.DRIVER_GONE): _stay,
    (Stage.ENDED, Event.FAILED): _stay,
    (Stage.ENDED, Event.STOP): _stay,
    (Stage.ENDED, Event.DRIVER_GONE): _stay,
}
SAID = frozenset({Event.DRAINED, Event.DRIVER_CLOSED})


def step(run: Run, event: Event, now: float, patience: Patience) -> Result:
    """The run after `event`, and what to do, in order."""
    row = TABLE.get((run.stage, event))
    if row is not None:
        return row(run, now, patience)
    if event in SAID:
        return run, ()
    raise Bug(f"event '{event.value}' cannot happen to a run that is {run.stage.value}")
