"""The stages of a run, as a pure table: (state, event, now) -> (state, actions).

Nothing here starts a process, reads a clock or waits, so tests can take every path.

The cards receive nothing before every worker is ready: packets that arrive earlier would
find full rings and be lost.

However a run ends, it ends in the same sequence, so that a rare path skips no step:

    (drain) -> workers gone -> driver gone -> cards gone -> books settled -> finished

If the driver dies, only its own step is skipped. The supervisor reports a condition such as
WORKERS_GONE in the stage that waits for it, even if it holds from the start of that stage.

A pair of stage and event that is in the table is allowed. An event of the driver that comes
at the wrong time (`SENT_BY_DRIVER`) is ignored: it may cross with a deadline. Any other pair
is an error in ringline and raises Bug.

Guarantees (tests in tests/pipeline/supervisor/test_run_states.py):
 - a run that nothing disturbs takes every action once, in order
   (test_an_orderly_run_does_everything_once_in_order)
 - from every reachable state, STOP and the passing of deadlines lead to the end
   (test_every_run_ends)
 - a stage that waits for a child has a deadline
   (test_every_stage_that_waits_for_a_child_has_a_deadline)
 - if the driver dies, in any stage, DMA stops first, and its books are settled
   (test_a_dead_driver_stops_dma_first_and_its_books_are_settled,
   test_dma_stops_first_in_every_stage_in_which_the_driver_may_die)
 - the books are settled exactly when the driver did not close them
   (test_books_are_settled_unless_the_driver_closed_them)
 - a repeated STOP does not extend the drain
   (test_repeated_stops_do_not_extend_the_drain)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import Bug


class Stage(enum.Enum):
    """What a run is doing."""

    OPENING = "opening"  # the driver finds its cards, the workers prepare
    BEGINNING = "beginning"  # the driver starts its cards
    RUNNING = "running"
    DRAINING = "draining"  # the cards receive no more; packets in flight are sent
    ABORTING = "aborting the driver"  # it was silent: SIGABRT is sent
    KILLING = "killing the driver"  # SIGKILL is sent
    RETIRING = "retiring"  # the workers are told to stop
    CLOSING = "closing"  # the driver is told to stop
    DISMISSING = "dismissing"  # the card processes are told to stop
    ENDED = "ended"


class RunEvent(enum.Enum):
    """What happens to a run."""

    OPENED = "the driver has its cards"
    ALL_READY = "every worker is ready too"
    BEGUN = "the cards receive"
    FAILED = "failed"  # a reason to end the run while the driver lives
    STOP = "stop"  # a second STOP shortens the drain or the stop of the workers
    DRAINED = "drained"
    DRIVER_CLOSED = "driver closed"  # after Stop: cards are stopped, books closed
    DRIVER_SILENT = "driver silent"
    DRIVER_GONE = "driver gone"
    WORKERS_GONE = "workers gone"
    CARDS_GONE = "cards gone"
    DEADLINE = "deadline"


class RunAction(enum.Enum):
    """What the supervisor does, in the order given."""

    BEGIN = "begin"  # make the driver start its cards
    SERVE = "serve"  # packets move: report READY to the service manager, start timers
    DRAIN = "drain"
    HURRY = "hurry"  # shorten the drain
    STOP_WORKERS = "stop workers"
    STOP_DRIVER = "stop driver"
    ABORT_DRIVER = "abort driver"
    KILL_DRIVER = "kill driver"
    STOP_DMA = "stop DMA"
    STOP_CARDS = "stop cards"
    KILL_CARDS = "kill cards"
    SETTLE = "settle"  # settle the books, which the driver did not close
    FINISH = "finish"


@dataclass(frozen=True)
class Timeouts:
    """How long each stage may last, in seconds."""

    open: float = deadlines.OPEN
    drain: float = deadlines.DRAIN
    hurry: float = deadlines.HURRY
    grace: float = deadlines.GRACE
    kill: float = deadlines.KILL
    retire: float = deadlines.RETIRE
    close: float = deadlines.CLOSE
    dismiss: float = deadlines.DISMISS


@dataclass(frozen=True)
class RunState:
    """The state of a run. `driver`: there is a driver process that must be stopped."""

    stage: Stage = Stage.OPENING
    deadline: float | None = None
    driver: bool = True
    closed: bool = False  # the driver closed the books
    cards_killed: bool = False


RunTransition = tuple[RunState, tuple[RunAction, ...]]
RunRow = Callable[[RunState, float, Timeouts], RunTransition]


def _to(stage: Stage, limit: str | None, *actions: RunAction) -> RunRow:
    """A row that changes the stage, with the deadline `timeouts.<limit>` seconds from now."""

    def row(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
        deadline = None if limit is None else now + getattr(timeouts, limit)
        return replace(run, stage=stage, deadline=deadline), actions

    return row


def _driver_lost(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    """The driver ended unexpectedly. DMA stops before memory is used for anything else."""
    lost = replace(run, driver=False)
    if run.stage is Stage.RETIRING:
        return lost, (RunAction.STOP_DMA,)
    retiring, actions = _retire(lost, now, timeouts)
    return retiring, (RunAction.STOP_DMA, *actions)


def _workers_gone(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    if run.driver:
        return _close(run, now, timeouts)
    return _dismiss(run, now, timeouts)


def _closing_driver_gone(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    if run.closed:
        return _dismiss(replace(run, driver=False), now, timeouts)
    return _driver_lost(run, now, timeouts)


def _dismiss(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    dismissing = replace(run, stage=Stage.DISMISSING, deadline=now + timeouts.dismiss)
    return dismissing, (RunAction.STOP_CARDS,)


def _cards_late(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    """Kill card processes that did not exit. If one survives SIGKILL, leave it."""
    if run.cards_killed:
        return _finish(run, now, timeouts)
    return replace(run, cards_killed=True, deadline=now + timeouts.kill), (RunAction.KILL_CARDS,)


def _finish(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    actions = (RunAction.FINISH,) if run.closed else (RunAction.SETTLE, RunAction.FINISH)
    return replace(run, stage=Stage.ENDED, deadline=None), actions


_retire = _to(Stage.RETIRING, "retire", RunAction.STOP_WORKERS)
_close = _to(Stage.CLOSING, "close", RunAction.STOP_DRIVER)
_abort = _to(Stage.ABORTING, "grace", RunAction.ABORT_DRIVER)
_kill = _to(Stage.KILLING, "kill", RunAction.KILL_DRIVER)


def _closed(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    return replace(run, closed=True), ()


def _stay(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    return run, ()


def _hurry_drain(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    """STOP while draining shortens the drain. A further STOP must not extend it again."""
    if run.deadline is not None and run.deadline <= now + timeouts.hurry:
        return run, ()
    return replace(run, deadline=now + timeouts.hurry), (RunAction.HURRY,)


def _hurry_workers(run: RunState, now: float, timeouts: Timeouts) -> RunTransition:
    return run, (RunAction.STOP_WORKERS,)


RUN_TABLE: Mapping[tuple[Stage, RunEvent], RunRow] = {
    (Stage.OPENING, RunEvent.OPENED): lambda run, now, timeouts: (replace(run, deadline=None), ()),
    (Stage.OPENING, RunEvent.ALL_READY): _to(Stage.BEGINNING, "open", RunAction.BEGIN),
    (Stage.OPENING, RunEvent.FAILED): _retire,
    (Stage.OPENING, RunEvent.STOP): _retire,
    (Stage.OPENING, RunEvent.DEADLINE): _retire,
    (Stage.OPENING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.BEGINNING, RunEvent.BEGUN): _to(Stage.RUNNING, None, RunAction.SERVE),
    (Stage.BEGINNING, RunEvent.FAILED): _retire,
    (Stage.BEGINNING, RunEvent.STOP): _retire,
    (Stage.BEGINNING, RunEvent.DEADLINE): _retire,
    (Stage.BEGINNING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.RUNNING, RunEvent.FAILED): _retire,
    (Stage.RUNNING, RunEvent.STOP): _to(Stage.DRAINING, "drain", RunAction.DRAIN),
    (Stage.RUNNING, RunEvent.DRIVER_SILENT): _abort,
    (Stage.RUNNING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.DRAINING, RunEvent.FAILED): _retire,
    (Stage.DRAINING, RunEvent.STOP): _hurry_drain,
    (Stage.DRAINING, RunEvent.DRAINED): _retire,
    (Stage.DRAINING, RunEvent.DEADLINE): _retire,
    (Stage.DRAINING, RunEvent.DRIVER_SILENT): _abort,
    (Stage.DRAINING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.ABORTING, RunEvent.FAILED): _stay,
    (Stage.ABORTING, RunEvent.STOP): _stay,
    (Stage.ABORTING, RunEvent.DEADLINE): _kill,
    (Stage.ABORTING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.KILLING, RunEvent.FAILED): _stay,
    (Stage.KILLING, RunEvent.STOP): _stay,
    (Stage.KILLING, RunEvent.DEADLINE): _driver_lost,
    (Stage.KILLING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.RETIRING, RunEvent.FAILED): _stay,
    (Stage.RETIRING, RunEvent.STOP): _hurry_workers,
    (Stage.RETIRING, RunEvent.DRIVER_GONE): _driver_lost,
    (Stage.RETIRING, RunEvent.WORKERS_GONE): _workers_gone,
    (Stage.RETIRING, RunEvent.DEADLINE): _workers_gone,
    (Stage.CLOSING, RunEvent.FAILED): _stay,
    (Stage.CLOSING, RunEvent.STOP): _stay,
    (Stage.CLOSING, RunEvent.DRIVER_CLOSED): _closed,
    (Stage.CLOSING, RunEvent.DEADLINE): _abort,
    (Stage.CLOSING, RunEvent.DRIVER_GONE): _closing_driver_gone,
    (Stage.DISMISSING, RunEvent.FAILED): _stay,
    (Stage.DISMISSING, RunEvent.STOP): _stay,
    (Stage.DISMISSING, RunEvent.CARDS_GONE): _finish,
    (Stage.DISMISSING, RunEvent.DEADLINE): _cards_late,
    (Stage.DISMISSING, RunEvent.DRIVER_GONE): _stay,
    (Stage.ENDED, RunEvent.FAILED): _stay,
    (Stage.ENDED, RunEvent.STOP): _stay,
    (Stage.ENDED, RunEvent.DRIVER_GONE): _stay,
}
SENT_BY_DRIVER = frozenset({RunEvent.DRAINED, RunEvent.DRIVER_CLOSED})


def step_run(run: RunState, event: RunEvent, now: float, timeouts: Timeouts) -> RunTransition:
    """The state after `event`, and the actions to take, in order."""
    row = RUN_TABLE.get((run.stage, event))
    if row is not None:
        return row(run, now, timeouts)
    if event in SENT_BY_DRIVER:
        return run, ()
    raise Bug(f"event '{event.value}' cannot happen to a run that is {run.stage.value}")
