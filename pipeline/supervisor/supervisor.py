"""The supervisor: it starts the driver and the workers, watches them, replaces workers, and
ends everything.

One thread runs one loop over process ends (pidfds), control sockets, signals, the metrics and
status sockets, and deadlines. Two pure tables decide: worker_states.py for a worker,
run_states.py for the run. The monitors act on the children; the publisher shows the run to
the outside.

Guarantees (tests in tests/pipeline/supervisor/test_supervisor.py):
 - however a run ends, every child is reaped and every segment unlinked
   (test_nothing_is_left_however_it_ends)
 - a dead worker is replaced and the other worker processes run on
   (test_a_dead_worker_has_a_successor_and_the_others_do_not_notice)
 - a plugin that fails before it was ever ready refuses the whole run
   (test_a_plugin_that_fails_at_first_refuses_the_run)
 - the death of the driver ends the run with balanced books
   (test_the_death_of_the_driver_ends_the_run)
 - a pause of the whole machine ends no process
   (tests/e2e/test_slow_is_not_dead.py: test_a_pause_of_everything_ends_nothing)
 - a signal ends the run in order or is refused with a line
   (tests/e2e/test_signals.py: test_a_signal_ends_the_run_in_order_or_is_refused)
 - the supervisor never waits for a reader of its output
   (tests/e2e/test_unread_output.py: test_output_that_nobody_reads_stops_nothing)
 - with `adopt_orphans`, processes that a plugin started end with their worker, and no zombie
   stays (tests/e2e/test_family.py: test_a_double_fork_ends_with_its_worker,
   test_zombies_are_reaped_as_process_1)
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.affinity import place, usable_cpus
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor import run_states
from ringline.pipeline.supervisor.children import Children, Programs
from ringline.pipeline.supervisor.driver_monitor import DriverChange
from ringline.pipeline.supervisor.event_loop import Loop, Service
from ringline.pipeline.supervisor.instance import Instance
from ringline.pipeline.supervisor.monitor import RunContext
from ringline.pipeline.supervisor.outcome import Outcome, books_error, given_up_error, timeout_error
from ringline.pipeline.supervisor.publisher import Publisher, ShowSnapshot
from ringline.pipeline.supervisor.run_states import RunAction, RunEvent, RunState, Stage, Timeouts
from ringline.pipeline.supervisor.sd_notify import Notifier
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.pipeline.telemetry.observe import Sources
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm import signals
from ringline.shm.errors import GaveUp, Interrupted, RinglineError
from ringline.shm.family import Family
from ringline.shm.ledger import settle_driver

CHECK_SHARE = 0.35  # interval between checks of the heartbeats, as a share of the silence ...
CHECK_MAX = 0.35  # ... that ends a worker, and at most this many seconds
PAUSE = 0.25  # seconds by which a turn is late when the machine or this process was stopped


class Supervisor:
    """One run of one instance: call `run` once.

    The run ends after `seconds` (None: no limit). `announce` gets a sentence for every event
    that matters to an operator, `display` a snapshot every second. `services` are served in
    the loop and left open. `stop_dma` stops DMA of the card with a PCI address. For
    `ignore_signals_after` see Loop. `adopt_orphans`: end every process that a plugin left behind
    (shm/family.py). The run ends when the descriptor `end_with` is readable.
    """

    def __init__(
        self,
        config: Config,
        *,
        seconds: float | None = None,
        announce: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
        display: ShowSnapshot | None = None,
        services: Sequence[Service] = (),
        programs: Programs | None = None,
        policy: RestartPolicy | None = None,
        timeouts: Timeouts | None = None,
        stop_dma: Callable[[str], object] | None = None,
        ignore_signals_after: bool = False,
        adopt_orphans: bool = False,
        end_with: int | None = None,
    ) -> None:
        self._config = config
        self._seconds = seconds
        self._announce_to = announce
        self._display = display
        self._services = services
        self._programs = programs or Programs()
        self._policy = policy or RestartPolicy(
            intensity=config.restart.intensity, period=config.restart.period
        )
        self._timeouts = timeouts or Timeouts()
        silence = min((worker.silence for worker in config.workers), default=1.0)
        self._check_interval = min(silence * CHECK_SHARE, CHECK_MAX)
        self._stop_dma = stop_dma or _stop_bus_mastering
        self._ignore_signals_after = ignore_signals_after
        self._family = Family()
        self._adopt_orphans = adopt_orphans
        self._end_with = end_with
        self._events: deque[RunEvent] = deque()
        self._error: RinglineError | None = None
        self._final: Snapshot | None = None
        self._reports: dict[int, dict[str, Any]] = {}

    def run(self) -> Outcome:
        """Start everything, run until the end, and remove everything.

        Errors are in the outcome.
        """
        notifier = Notifier()
        try:
            with (
                self._family.adopt() if self._adopt_orphans else contextlib.nullcontext(),
                Loop(ignore_signals_after=self._ignore_signals_after) as loop,
                Instance(self._config, self._stop_dma) as instance,
            ):
                if remark := instance.packets.segment.remark:
                    self._announce(f"packet memory is on ordinary pages: {remark}")
                self._prepare(loop, instance, notifier)
                try:
                    self._publisher.open(self._config)
                    self._children.start_cards()
                    while not self._step_to_end():
                        self._turn()
                finally:
                    self._clean_up()
        except RinglineError as error:
            self._error = self._error or error
        return Outcome(self._error, self._final, self._reports)

    # -- beginning ----------------------------------------------------------------------

    def _prepare(self, loop: Loop, instance: Instance, notifier: Notifier) -> None:
        config = self._config
        self._loop, self._instance = loop, instance
        self._sources = Sources.of(config, instance.lane, instance.slots)
        queues = range(config.queues)
        wishes = {"driver": config.driver.cpu}
        wishes |= {f"worker {queue}": config.worker(queue).cpu for queue in queues}
        context = RunContext(
            config=config,
            loop=loop,
            instance=instance,
            places=place(wishes, usable_cpus()),
            announce=self._announce,
            end_now=self._end_now,
            drain_and_end=self._drain_and_end,
            family=self._family,
        )
        self._children = Children(
            context,
            self._programs,
            self._sources,
            self._policy,
            self._driver_changed,
        )
        self._run = RunState(driver=False, deadline=time.monotonic() + self._timeouts.open)
        self._sources.state = self._run.stage.value
        self._finished = False  # the driver has sent Finished
        self._driver_hung = False
        self._end_at: float | None = None
        self._check_at = time.monotonic()
        self._publisher = Publisher(
            loop,
            self._sources,
            notifier,
            self._display,
            self._services,
            self._request_stop,
            self._announce,
        )
        self._signalled = False  # a signal has ended the run
        loop.on_signal(self._on_signal)
        if self._end_with is not None:
            loop.watch(self._end_with, self._starter_ended)

    # -- one turn -----------------------------------------------------------------------

    def _step_to_end(self) -> bool:
        """Handle all events that are there; returns whether the run has ended."""
        while (event := self._next_event()) is not None:
            self._step(event)
        return self._run.stage is Stage.ENDED

    def _turn(self) -> None:
        """Wait for events or a deadline, then do what is due."""
        late = self._loop.turn(self._deadlines())
        if late > PAUSE:
            self._excuse(late)
        now = time.monotonic()
        self._check_heartbeats(now)
        self._children.check_deadlines(now)
        self._publisher.turn(now)

    def _excuse(self, seconds: float) -> None:
        """Extend the time of everyone by a pause in which the whole machine may have stopped."""
        if self._run.deadline is not None:
            self._run = replace(self._run, deadline=self._run.deadline + seconds)
        self._children.excuse(seconds)

    def _deadlines(self) -> list[float | None]:
        deadlines = [self._run.deadline, self._end_at]
        deadlines += self._children.deadlines() + self._publisher.deadlines()
        if self._checks_heartbeats:
            deadlines.append(self._check_at)
        return deadlines

    def _next_event(self) -> RunEvent | None:
        """The next event that happened; else a condition that the stage waits for and that
        holds now; else None."""
        if self._events:
            return self._events.popleft()
        stage, children, now = self._run.stage, self._children, time.monotonic()
        if stage is Stage.OPENING and not children.started and children.cards_ready:
            self._run = replace(self._run, driver=True)
            children.start()
        if stage is Stage.OPENING and children.driver.opened:
            if self._run.deadline is not None:
                return RunEvent.OPENED
            return RunEvent.ALL_READY if children.workers_served else None
        if stage is Stage.BEGINNING and children.driver.ready:
            return RunEvent.BEGUN
        if stage in (Stage.RUNNING, Stage.DRAINING) and self._driver_hung:
            return RunEvent.DRIVER_SILENT
        if stage is Stage.RUNNING:
            if children.workers_given_up:
                self._blame(GaveUp("the workers of all queues were given up; see above"))
                return RunEvent.STOP
            if self._finished or (self._end_at is not None and self._end_at <= now):
                self._end_at = None
                return RunEvent.STOP
        if stage is Stage.RETIRING and children.workers_over:
            return RunEvent.WORKERS_GONE
        if stage is Stage.DISMISSING and children.cards_gone:
            return RunEvent.CARDS_GONE
        if self._run.deadline is not None and self._run.deadline <= now:
            self._blame_late_stage()
            return RunEvent.DEADLINE
        return None

    def _step(self, event: RunEvent) -> None:
        self._run, actions = run_states.step_run(self._run, event, time.monotonic(), self._timeouts)
        self._sources.state = self._run.stage.value
        for action in actions:
            self._perform(action)

    def _perform(self, action: RunAction) -> None:
        if action is RunAction.BEGIN:
            self._children.driver.send_now({"do": "begin"})
        elif action is RunAction.SERVE:
            self._serve()
        elif action is RunAction.DRAIN:
            self._publisher.stopping()
            self._drain(self._timeouts.drain)
        elif action is RunAction.HURRY:
            self._drain(self._timeouts.hurry)
        elif action is RunAction.STOP_WORKERS:
            self._children.stop_workers()
        elif action is RunAction.STOP_DRIVER:
            self._children.driver.send_now({"do": "stop"})
        elif action is RunAction.ABORT_DRIVER:
            self._children.driver.signal(signal.SIGABRT)
        elif action is RunAction.KILL_DRIVER:
            self._children.driver.signal(signal.SIGKILL)
        elif action is RunAction.STOP_DMA:
            self._children.stop_dma(self._stop_dma)
        elif action is RunAction.STOP_CARDS:
            self._children.stop_cards()
        elif action is RunAction.KILL_CARDS:
            self._children.kill_cards()
        elif action is RunAction.SETTLE:
            lost = settle_driver(self._instance.lane).lost
            if self._children.driver.served:
                self._announce(f"{lost} packets were in flight when the driver died (driver_lost)")
        elif action is RunAction.FINISH:
            self._finish()

    def _drain(self, seconds: float) -> None:
        self._children.driver.send_now({"do": "drain", "seconds": seconds * deadlines.DRAIN_SHARE})

    def _serve(self) -> None:
        """Packets move from now on."""
        if self._seconds is not None:
            self._end_at = time.monotonic() + self._seconds
        self._publisher.ready(len(self._config.ports), len(self._children.workers))

    # -- what happens -------------------------------------------------------------------

    @property
    def _checks_heartbeats(self) -> bool:
        """Whether heartbeats are checked in this stage."""
        return self._run.stage in (
            Stage.OPENING,
            Stage.BEGINNING,
            Stage.RUNNING,
            Stage.DRAINING,
        )

    def _check_heartbeats(self, now: float) -> None:
        if not self._checks_heartbeats or now < self._check_at:
            return
        self._check_at = now + self._check_interval
        self._family.reap()
        failure = self._children.check_heartbeats(now, cap=1.5 * self._check_interval)
        if failure and not self._driver_hung:
            self._driver_hung = True
            self._blame(GaveUp(f"the driver {failure} and was ended"))

    def _driver_changed(self, change: DriverChange) -> None:
        if change == "finished":
            self._finished = True
        elif change == "drained":
            self._events.append(RunEvent.DRAINED)
        elif change == "stopped":
            self._events.append(RunEvent.DRIVER_CLOSED)
        elif change == "gone":
            if not self._run.closed and RunEvent.DRIVER_CLOSED not in self._events:
                reason = self._children.driver.exit_reason
                self._blame(GaveUp(f"the driver {reason}; everything was stopped"))
            self._events.append(RunEvent.DRIVER_GONE)

    def _on_signal(self, number: int) -> None:
        """End the run, or refuse a signal that asks for something else (shm/signals.py)."""
        name = signals.name_of(number)
        if number in signals.ASKING:
            self._announce(f"{name} is ignored: SIGTERM or Ctrl-C ends a run")
            return
        if number not in signals.ORDINARY and not self._signalled:
            self._blame(Interrupted(number, name))
        self._signalled = True
        self._request_stop()

    def _starter_ended(self) -> None:
        assert self._end_with is not None
        self._loop.forget(self._end_with)
        self._announce("the program that started this run has ended, so the run ends")
        self._request_stop()

    def _request_stop(self) -> None:
        self._events.append(RunEvent.STOP)

    def _end_now(self, error: RinglineError) -> None:
        self._blame(error)
        self._events.append(RunEvent.FAILED)

    def _drain_and_end(self, error: RinglineError) -> None:
        # A second STOP would shorten an end that has begun.
        begun = (Stage.OPENING, Stage.BEGINNING, Stage.RUNNING)
        if self._error is None and self._run.stage in begun:
            self._request_stop()
        self._blame(error)

    def _announce(self, sentence: str) -> None:
        """Tell the operator. If that fails, the run goes on: there is nobody to tell."""
        with contextlib.suppress(Exception):
            self._announce_to(sentence)

    def _blame(self, error: RinglineError) -> None:
        """The first error becomes the error of the run."""
        self._error = self._error or error

    def _blame_late_stage(self) -> None:
        """Note that the deadline of the stage has passed."""
        stage, started = self._run.stage, self._children.started
        ports = self._config.ports
        error = timeout_error(stage, self._timeouts, ports, driver_started=started)
        if error is not None:
            self._blame(error)
        elif stage is Stage.DRAINING:
            self._announce("the drain took too long: packets that cannot be sent now are dropped")

    # -- the end ------------------------------------------------------------------------

    def _finish(self) -> None:
        self._final, self._reports = self._publisher.take(), self._children.reports
        found = books_error(self._final) or self._error
        self._error = found or given_up_error(self._final)

    def _clean_up(self) -> None:
        """End everything that an exception may have left running."""
        self._publisher.close()
        if self._children.shut_down(self._timeouts.kill):
            self._children.stop_dma(self._stop_dma)


def _stop_bus_mastering(address: str) -> object:
    """Imported here: only instances with real cards need the module."""
    from ringline.pipeline.ports.pci import sysfs

    return sysfs.stop_dma(address)
