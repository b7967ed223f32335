"""The supervisor: it starts the driver and the workers, watches them, replaces them, ends them.

One thread, one loop: process ends (pidfds), control sockets, signals, the metrics
and status sockets, deadlines. What is decided lies in two pure tables, `lifecycle`
for a worker slot and `run_lifecycle` for the run; what is done to children, in
their monitors.

Guarantees (tests in tests/pipeline/supervisor/test_supervisor.py):
 - however a run ends, every child is reaped and every segment unlinked
   (test_nothing_is_left_however_it_ends)
 - a worker that ends is replaced and the others are not disturbed
   (test_a_dead_worker_has_a_successor_and_the_others_do_not_notice)
 - a plugin that fails before it ever served refuses the whole run
   (test_a_plugin_that_fails_at_first_refuses_the_run)
 - the death of the driver ends the run with balanced books
   (test_the_death_of_the_driver_ends_the_run)
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ringline.pipeline.configuration.affinity import place, usable_cpus
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor import run_states
from ringline.pipeline.supervisor.children import Children, Programs
from ringline.pipeline.supervisor.event_loop import Loop, Service
from ringline.pipeline.supervisor.instance import Instance
from ringline.pipeline.supervisor.monitor import RunContext
from ringline.pipeline.supervisor.run_states import RunAction, RunEvent, RunState, Stage, Timeouts
from ringline.pipeline.supervisor.sd_notify import Notifier
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.pipeline.telemetry import metrics_http, observe
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_socket import StatusServer
from ringline.shm.errors import BooksError, EnvironmentLacks, GaveUp, HardwareError, RinglineError
from ringline.shm.ledger import settle_driver

SILENCE = 1.0  # seconds without a heartbeat until a worker counts as hung
LOOK = 0.35  # of `silence`: from one look at the heartbeats to the next
DISPLAY_EVERY = 1.0
DRAIN_SHARE = 0.9  # of the drain's deadline is the driver's, to answer in time


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` None is well.

    `snapshot` was taken when the books were closed; None if nothing was started.
    `reports` holds what plugins said of themselves at last, by queue.
    """

    error: RinglineError | None
    snapshot: Snapshot | None = None
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)


class Supervisor:
    """One run of one instance. `run` is its life.

    `seconds` ends it after so long; `announce` gets one sentence for everything
    that an operator may want to know, `display` a snapshot every second. `beside` is served
    in the loop, and left open. `last`: the process has little more to do afterwards, and
    signals shall not keep it from that.
    """

    def __init__(
        self,
        config: Config,
        *,
        seconds: float | None = None,
        announce: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
        display: Callable[[Snapshot], None] | None = None,
        beside: Sequence[Service] = (),
        programs: Programs | None = None,
        policy: RestartPolicy | None = None,
        timeouts: Timeouts | None = None,
        silence: float = SILENCE,
        stop_dma: Callable[[str], None] | None = None,
        last: bool = False,
    ) -> None:
        self._config = config
        self._seconds = seconds
        self._say = announce
        self._display = display
        self._beside = beside
        self._programs = programs or Programs()
        self._policy = policy or RestartPolicy(
            intensity=config.restart.intensity, period=config.restart.period
        )
        self._timeouts = timeouts or Timeouts()
        self._silence = silence
        self._stop_dma = stop_dma or _stop_bus_mastering
        self._last = last
        self._events: deque[RunEvent] = deque()
        self._error: RinglineError | None = None
        self._final: Snapshot | None = None
        self._reports: dict[int, dict[str, Any]] = {}
        self._services: list[Service] = []

    def run(self) -> Outcome:
        """Start everything, serve until the end, leave nothing. Errors are in the outcome."""
        self._notifier = Notifier()
        try:
            with Loop(last=self._last) as loop, Instance(self._config, self._stop_dma) as instance:
                if remark := instance.packets.segment.remark:
                    self._announce(f"packet memory is on ordinary pages: {remark}")
                self._prepare(loop, instance)
                try:
                    self._start()
                    while not self._ended():
                        self._turn()
                finally:
                    self._clear()
        except RinglineError as error:
            self._error = self._error or error
        return Outcome(self._error, self._final, self._reports)

    # -- beginning ----------------------------------------------------------------------

    def _prepare(self, loop: Loop, instance: Instance) -> None:
        config = self._config
        self._loop, self._instance = loop, instance
        self._sources = observe.Sources.of(config, instance.lane, instance.slots)
        queues = range(config.queues)
        wishes = {"driver": config.driver.cpu}
        wishes |= {f"worker {queue}": config.worker(queue).cpu for queue in queues}
        context = RunContext(
            config=config,
            loop=loop,
            instance=instance,
            places=place(wishes, usable_cpus()),
            announce=self._announce,
            fail=self._fail,
            lack=self._lack,
        )
        self._children = Children(
            context,
            self._programs,
            self._sources,
            self._policy,
            self._silence,
            self._driver_changed,
        )
        self._run = RunState(driver=False, deadline=time.monotonic() + self._timeouts.open)
        self._sources.state = self._run.stage.value
        self._finished = False  # the driver said that every wire is dry
        self._hung = False  # it gave no sign of life
        self._end_at: float | None = None
        self._display_at = self._look_at = self._alive_at = time.monotonic()
        loop.on_signal(lambda number: self._events.append(RunEvent.STOP))

    def _start(self) -> None:
        self._open_services()
        for service in (*self._beside, *self._services):
            self._loop.watch(service.fileno(), service.turn)
        self._children.start_cards()

    def _take(self) -> Snapshot:
        return observe.take(self._sources)

    def _open_services(self) -> None:
        """What others can ask: before there is traffic, so that a taken port is refused."""
        listener = metrics_http.listen(self._config.metrics)
        if listener is not None:
            metrics = metrics_http.MetricsServer(listener, self._take)
            self._sources.metrics_url = metrics.url
            self._services.append(metrics)
        self._services.append(StatusServer(self._config.name, self._take))

    # -- one turn -----------------------------------------------------------------------

    def _ended(self) -> bool:
        """Take every step that can be taken now; whether that was the last."""
        while (event := self._next_event()) is not None:
            self._step(event)
        return self._run.stage is Stage.ENDED

    def _turn(self) -> None:
        """Wait for something to happen, and hear of everything that did."""
        self._loop.turn(self._deadlines())
        now = time.monotonic()
        self._look(now)
        self._children.late(now)
        for service in self._services:
            if service.deadline is not None and service.deadline <= now:
                service.turn()
        self._tell_world(now)

    def _deadlines(self) -> list[float | None]:
        deadlines = [self._run.deadline, self._end_at, *self._children.deadlines()]
        deadlines += [service.deadline for service in self._services]
        if self._watching:
            deadlines.append(self._look_at)
        if self._display is not None:
            deadlines.append(self._display_at)
        if self._notifier.watchdog_seconds is not None:
            deadlines.append(self._alive_at)
        return deadlines

    def _next_event(self) -> RunEvent | None:
        """What happened, else what holds now and the table waits for."""
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
        if stage in (Stage.RUNNING, Stage.DRAINING) and self._hung:
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
            self._tell_what_is_late()
            return RunEvent.DEADLINE
        return None

    def _step(self, event: RunEvent) -> None:
        self._run, actions = run_states.step_run(self._run, event, time.monotonic(), self._timeouts)
        self._sources.state = self._run.stage.value
        for action in actions:
            self._perform(action)

    def _perform(self, action: RunAction) -> None:
        if action is RunAction.BEGIN:
            self._children.driver.order({"do": "begin"})
        elif action is RunAction.SERVE:
            self._serve()
        elif action is RunAction.DRAIN:
            self._notifier.stopping()
            self._children.driver.order(
                {"do": "drain", "seconds": self._timeouts.drain * DRAIN_SHARE}
            )
        elif action is RunAction.HURRY:
            self._children.driver.order(
                {"do": "drain", "seconds": self._timeouts.hurry * DRAIN_SHARE}
            )
        elif action is RunAction.STOP_WORKERS:
            self._children.stop_workers()
        elif action is RunAction.STOP_DRIVER:
            self._children.driver.order({"do": "stop"})
        elif action is RunAction.ABORT_DRIVER:
            self._children.driver.signal(signal.SIGABRT)
        elif action is RunAction.KILL_DRIVER:
            self._children.driver.signal(signal.SIGKILL)
        elif action is RunAction.STOP_DMA:
            self._children.stop_dma(self._stop_dma)
        elif action is RunAction.STOP_CARDS:
            self._children.dismiss_cards()
        elif action is RunAction.KILL_CARDS:
            self._children.kill_cards()
        elif action is RunAction.SETTLE:
            lost = settle_driver(self._instance.lane).lost
            if self._children.driver.served:
                self._announce(f"the driver's books were settled: {lost} packets lost with it")
        elif action is RunAction.FINISH:
            self._finish()

    # -- what happens -------------------------------------------------------------------

    @property
    def _watching(self) -> bool:
        """Whether heartbeats are looked at."""
        return self._run.stage in (
            Stage.OPENING,
            Stage.BEGINNING,
            Stage.RUNNING,
            Stage.DRAINING,
        )

    def _look(self, now: float) -> None:
        if not self._watching or now < self._look_at:
            return
        every = self._silence * LOOK
        self._look_at = now + every
        why = self._children.look(now, 1.5 * every)
        if why and not self._hung:
            self._hung = True
            self._blame(GaveUp(f"the driver {why} and was ended"))

    def _driver_changed(self, what: str) -> None:
        if what == "finished":
            self._finished = True
        elif what == "drained":
            self._events.append(RunEvent.DRAINED)
        elif what == "stopped":
            self._events.append(RunEvent.DRIVER_CLOSED)
        elif what == "gone":
            if not self._run.closed and RunEvent.DRIVER_CLOSED not in self._events:
                self._blame(
                    GaveUp(f"the driver {self._children.driver.how}; everything was stopped")
                )
            self._events.append(RunEvent.DRIVER_GONE)

    def _fail(self, error: RinglineError) -> None:
        self._blame(error)
        self._events.append(RunEvent.FAILED)

    def _lack(self, error: EnvironmentLacks) -> None:
        if self._error is None:
            self._events.append(RunEvent.STOP)
        self._blame(error)

    def _announce(self, sentence: str) -> None:
        """Tell the operator; a run does not end because nobody can read it."""
        with contextlib.suppress(OSError):
            self._say(sentence)

    def _blame(self, error: RinglineError) -> None:
        """The first reason to end is the reason."""
        self._error = self._error or error

    def _tell_what_is_late(self) -> None:
        """The deadline of the run's stage has passed."""
        stage, timeouts = self._run.stage, self._timeouts
        if stage is Stage.OPENING and not self._children.started:
            self._blame(
                HardwareError(f"the simulated cards were not ready within {timeouts.open:g} s")
            )
        elif stage in (Stage.OPENING, Stage.BEGINNING):
            self._blame(
                HardwareError(
                    f"the driver did not open its ports within {timeouts.open:g} s: "
                    + ", ".join(f"{port.name} ({port.device})" for port in self._config.ports)
                )
            )
        elif stage is Stage.DRAINING:
            self._announce("the drain is over its time: what is in flight is counted as lost")
        elif stage is Stage.CLOSING:
            self._blame(
                HardwareError(f"the driver did not stop its ports within {timeouts.close:g} s")
            )

    def _serve(self) -> None:
        now = time.monotonic()
        self._end_at = None if self._seconds is None else now + self._seconds
        self._display_at = now
        ports = _number(len(self._config.ports), "port")
        self._notifier.ready(f"{ports}, {_number(len(self._children.workers), 'worker')}")

    def _tell_world(self, now: float) -> None:
        if self._notifier.watchdog_seconds is not None and now >= self._alive_at:
            self._alive_at = now + self._notifier.watchdog_seconds / 3
            self._notifier.alive()
        if self._display is not None and now >= self._display_at:
            self._display_at = now + DISPLAY_EVERY
            try:
                self._display(self._take())
            except OSError:
                self._display = None
                if _is_pipe(sys.stdout):  # whoever read it has gone; a journal comes back
                    self._events.append(RunEvent.STOP)

    # -- the end ------------------------------------------------------------------------

    def _finish(self) -> None:
        self._final, self._reports = self._take(), self._children.reports
        if not self._final.balanced:
            wrong = {name: off for name, off in self._final.balance.items() if off}
            self._error = BooksError(
                "the books do not balance: "
                + ", ".join(f"{name} is off by {off}" for name, off in wrong.items())
            )

    def _clear(self) -> None:
        """Whatever happened: nothing of this run goes on."""
        for service in self._services:
            self._loop.forget(service.fileno())
            service.close()
        if self._children.abandon(self._timeouts.kill):
            self._children.stop_dma(self._stop_dma)


def _number(count: int, of: str) -> str:
    return f"{count} {of}" if count == 1 else f"{count} {of}s"


def _is_pipe(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def _stop_bus_mastering(address: str) -> None:
    """Only instances with real cards pay for the import."""
    from ringline.pipeline.ports import pci

    pci.stop_dma(address)
