"""The supervisor: it starts the driver and the workers, watches them, replaces workers, and
ends everything.

One thread runs one loop over process ends (pidfds), control sockets, signals, the metrics and
status sockets, and deadlines. Two pure tables decide: worker_states.py for a worker,
run_states.py for the run. The monitors act on the children; the publisher shows the run to
the outside.

Guarantees (tests in tests/pipeline/supervisor/test_supervisor.py):
 - however a run ends, every child is reaped and every segment unlinked
   (test_nothing_is_left_however_it_ends)
 - a dead worker is replaced and the others are not disturbed
   (test_a_dead_worker_has_a_successor_and_the_others_do_not_notice)
 - a plugin that fails before it was ever ready refuses the whole run
   (test_a_plugin_that_fails_at_first_refuses_the_run)
 - the death of the driver ends the run with balanced books
   (test_the_death_of_the_driver_ends_the_run)
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

from ringline.pipeline.configuration.affinity import place, usable_cpus
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor import run_states
from ringline.pipeline.supervisor.children import Children, Programs
from ringline.pipeline.supervisor.driver_monitor import DriverChange
from ringline.pipeline.supervisor.event_loop import Loop, Service
from ringline.pipeline.supervisor.instance import Instance
from ringline.pipeline.supervisor.monitor import RunContext
from ringline.pipeline.supervisor.outcome import Outcome, books_error, given_up_error, timeout_error
from ringline.pipeline.supervisor.publisher import Display, Publisher
from ringline.pipeline.supervisor.run_states import RunAction, RunEvent, RunState, Stage, Timeouts
from ringline.pipeline.supervisor.sd_notify import Notifier
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.pipeline.telemetry.observe import Sources
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import EnvironmentLacks, GaveUp, RinglineError
from ringline.shm.ledger import settle_driver

HEARTBEAT_TIMEOUT = 1.0  # seconds without a new heartbeat of a worker
CHECK_SHARE = 0.35  # interval between checks of the heartbeats, as a share of the timeout
DRAIN_SHARE = 0.9  # the driver's time to drain, as a share of ours: it still has to answer


class Supervisor:
    """One run of one instance: call `run` once.

    The run ends after `seconds` (None: no limit). `announce` gets a sentence for every event
    that matters to an operator, `display` a snapshot every second. `services` are served in
    the loop and left open. A worker counts as hung after `heartbeat_timeout` seconds without
    a new heartbeat. `stop_dma` stops DMA of the card with a PCI address. For
    `ignore_signals_after` see Loop.
    """

    def __init__(
        self,
        config: Config,
        *,
        seconds: float | None = None,
        announce: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
        display: Display | None = None,
        services: Sequence[Service] = (),
        programs: Programs | None = None,
        policy: RestartPolicy | None = None,
        timeouts: Timeouts | None = None,
        heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
        stop_dma: Callable[[str], None] | None = None,
        ignore_signals_after: bool = False,
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
        self._heartbeat_timeout = heartbeat_timeout
        self._stop_dma = stop_dma or _stop_bus_mastering
        self._ignore_signals_after = ignore_signals_after
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
        )
        self._children = Children(
            context,
            self._programs,
            self._sources,
            self._policy,
            self._heartbeat_timeout,
            self._driver_changed,
        )
        self._run = RunState(driver=False, deadline=time.monotonic() + self._timeouts.open)
        self._sources.state = self._run.stage.value
        self._finished = False  # the driver has sent Finished
        self._driver_hung = False
        self._end_at: float | None = None
        self._check_at = time.monotonic()
        self._publisher = Publisher(
            loop, self._sources, notifier, self._display, self._services, self._request_stop
        )
        loop.on_signal(lambda number: self._request_stop())

    # -- one turn -----------------------------------------------------------------------

    def _step_to_end(self) -> bool:
        """Handle all events that are there; returns whether the run has ended."""
        while (event := self._next_event()) is not None:
            self._step(event)
        return self._run.stage is Stage.ENDED

    def _turn(self) -> None:
        """Wait for events or a deadline, then do what is due."""
        self._loop.turn(self._deadlines())
        now = time.monotonic()
        self._check_heartbeats(now)
        self._children.check_deadlines(now)
        self._publisher.turn(now)

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
                self._announce(f"the driver's books were settled: {lost} packets lost with it")
        elif action is RunAction.FINISH:
            self._finish()

    def _drain(self, seconds: float) -> None:
        self._children.driver.send_now({"do": "drain", "seconds": seconds * DRAIN_SHARE})

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
        interval = self._heartbeat_timeout * CHECK_SHARE
        self._check_at = now + interval
        failure = self._children.check_heartbeats(now, cap=1.5 * interval)
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

    def _request_stop(self) -> None:
        self._events.append(RunEvent.STOP)

    def _end_now(self, error: RinglineError) -> None:
        self._blame(error)
        self._events.append(RunEvent.FAILED)

    def _drain_and_end(self, error: EnvironmentLacks) -> None:
        if self._error is None:
            self._request_stop()
        self._blame(error)

    def _announce(self, sentence: str) -> None:
        """Tell the operator. If that fails, the run goes on."""
        with contextlib.suppress(OSError):
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
            self._announce("the drain took too long: packets still in flight are counted as lost")

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


def _stop_bus_mastering(address: str) -> None:
    """Imported here: only instances with real cards need the module."""
    from ringline.pipeline.ports import pci

    pci.stop_dma(address)
