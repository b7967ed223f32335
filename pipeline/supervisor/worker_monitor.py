"""The monitor of a worker: it does what the table in worker_states.py decides.

A worker is not trusted: messages at the wrong time are ignored, and values of the wrong type
are dropped.

Guarantees (tests in tests/pipeline/supervisor/test_supervisor.py):
 - a dead worker is replaced and the others are not disturbed
   (test_a_dead_worker_has_a_successor_and_the_others_do_not_notice)
 - a worker that hangs, closes its socket or sends garbage is replaced
   (test_a_faulty_worker_is_ended_and_replaced)
 - nonsense from a worker has no effect (test_nonsense_from_a_worker_has_no_effect)
 - the rings of an earlier generation are unlinked once they are settled
   (test_old_rings_are_unlinked_once_they_are_settled)
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.supervisor import worker_states
from ringline.pipeline.supervisor.driver_monitor import DriverMonitor
from ringline.pipeline.supervisor.heartbeat import Heartbeat
from ringline.pipeline.supervisor.instance import grant
from ringline.pipeline.supervisor.monitor import ERRORS, Monitor, RunContext
from ringline.pipeline.supervisor.worker_states import (
    Phase,
    RestartPolicy,
    WorkerAction,
    WorkerEvent,
    WorkerState,
)
from ringline.pipeline.telemetry.observe import WorkerSource
from ringline.shm.control import Message, revive
from ringline.shm.errors import EnvironmentLacks, PluginError, RinglineError
from ringline.shm.messages import SettlementReport, WorkerOpen
from ringline.shm.rings import RingPair
from ringline.workers.process import launch

# No threads of numeric libraries, which would use the driver's CPU.
THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

TRACE_LINES = 10  # of the traceback of a plugin's error


@dataclass
class Death:
    """Why one process of the worker ended; empty while it runs."""

    reason: str = ""  # "was ended by SIGKILL"
    error: RinglineError | None = None  # what the worker reported before
    fault: str = ""  # what the supervisor saw before: "gave no sign of life for 1 s"

    def describe(self) -> str:
        """The end of a sentence that begins with the worker's name."""
        cause = str(self.error) if self.error is not None else self.fault
        return f"{self.reason} ({cause})" if cause else self.reason


class WorkerMonitor(Monitor):
    """The worker of one queue, in all its generations; `state` is its state in the table.

    It counts as hung after `heartbeat_timeout` seconds without a new heartbeat. `source` is
    what snapshots read.
    """

    def __init__(
        self,
        context: RunContext,
        program: Sequence[str],
        source: WorkerSource,
        driver: DriverMonitor,
        policy: RestartPolicy,
        heartbeat_timeout: float,
    ) -> None:
        super().__init__(context, f"worker {source.queue}", program)
        self.queue = source.queue
        self.state = WorkerState()
        self.report: dict[str, Any] = {}
        self._source = source
        self._driver = driver
        self._policy = policy
        self._heartbeat_timeout = heartbeat_timeout
        # Read once: launch.environment() needs the current folder, which may be removed later.
        self._environment = {**THREADS, **launch.environment()}
        self._heartbeat = Heartbeat()
        self._death = Death()
        self._error_announced_at = 0.0
        self._ring_faults = 0  # the driver's count when it took the current rings
        self._settling = False  # the driver has not taken the current rings yet

    def step(self, event: WorkerEvent) -> None:
        """Handle an event: ask the table, then take its actions."""
        if event is WorkerEvent.DEADLINE:
            self._note_timeout()
        self.state, actions = worker_states.step_worker(
            self.state, event, time.monotonic(), self._policy
        )
        try:
            for action in actions:
                self._perform(action)
        except (RinglineError, OSError) as error:  # OSError: such as no descriptor left
            if isinstance(error, OSError):
                error = EnvironmentLacks(str(error))
            self._death.error = error
            self.context.announce(f"{self.name}: {error}")
        self._publish()
        if self.state.alive and self.child is None:
            self._death.reason = "could not be started"
            self.step(WorkerEvent.EXITED)

    def check(self, now: float, cap: float) -> None:
        """End the worker if it hangs, has closed its socket, or has broken its rings.

        `cap` is the most seconds of silence that one check adds.
        """
        if self.state.phase is not Phase.RUNNING:
            return
        value = self._source.slot.counters.heartbeat
        self._heartbeat = self._heartbeat.check(value, now, cap)
        if self.is_disconnected(now):
            self._death.fault = "closed its control socket"
        elif self._heartbeat.silence > self._heartbeat_timeout:
            self._death.fault = f"gave no sign of life for {self._heartbeat_timeout:g} s"
        elif not self._settling and self._count_ring_faults() != self._ring_faults:
            self._death.fault = "broke an index of its rings or held too many packets"
        else:
            return
        self.context.announce(f"{self.name} {self._death.fault}; it is ended")
        self.step(WorkerEvent.SILENT)

    def environment(self) -> dict[str, str]:
        """The variables of the worker; the user's values take precedence over THREADS."""
        return self._environment

    def on_message(self, event: str, message: Message) -> None:
        """Handle a message of the worker: a FromWorker, if the worker works correctly."""
        if event == "prepared":
            self.step(WorkerEvent.PREPARED)
        elif event == "ready":
            self._heartbeat = Heartbeat(checked_at=time.monotonic())
            self.step(WorkerEvent.READY)
        elif event == "failed":
            error = message.get("error")
            self._death.error = revive(error if isinstance(error, dict) else {}, ERRORS)
            self.step(WorkerEvent.FAILED)
        elif event == "report":
            self._note_report(message.get("plugin"))

    def on_exit(self, reason: str) -> None:
        """Note the exit and ask the table."""
        self._death.reason = reason
        self.step(WorkerEvent.EXITED)

    def _perform(self, action: WorkerAction) -> None:
        if action is WorkerAction.RINGS:
            self._renew_rings()
        elif action is WorkerAction.NO_RINGS:
            self._source.rings = None
            self._renew(self.state.generation + 1, None)
        elif action is WorkerAction.BLANK_STATE:
            self.context.announce(f"{self.name} died repeatedly: it starts with blank state")
            self._source.slot.clear_state()
        elif action is WorkerAction.SPAWN:
            self._start()
        elif action is WorkerAction.SEND_STOP:
            self.send({"do": "stop"})
        elif action is WorkerAction.ABORT:
            self.signal(signal.SIGABRT)
        elif action is WorkerAction.KILL:
            self.signal(signal.SIGKILL)
        elif action is WorkerAction.REFUSE:
            self.context.end_now(self._reason_to_refuse())

    def _start(self) -> None:
        if self._source.generation != self.state.generation:
            self._renew_rings()  # creating them failed when it died
        self._death = Death()
        self.spawn()
        config, instance = self.context.config.worker(self.queue), self.context.instance
        place = self.context.places[self.name]
        message: WorkerOpen = {
            "do": "open",
            "queue": self.queue,
            "generation": self.state.generation,
            "plugin": config.plugin,
            "options": config.options,
            "ports": [port.name for port in self.context.config.ports],
            "folder": self.context.config.folder,
            "state_bytes": config.state_bytes,
            "debug": config.debug,
            "idle": self.context.config.driver.idle,
            "yield": place.shared,
            "cpu": place.cpu,
        }
        assert self._source.rings is not None
        segments = (
            instance.packets.segment,
            self._source.rings.segment,
            self._source.slot.segment,
        )
        with grant(*segments) as descriptors:
            self.send(message, descriptors)

    def _renew_rings(self) -> None:
        generation = self.state.generation
        rings = self.context.instance.new_rings(self.queue, generation)
        self._source.rings, self._source.generation = rings, generation
        self._renew(generation, rings)

    def _renew(self, generation: int, rings: RingPair | None) -> None:
        death = self._death
        self._settling = True

        def on_settled(settled: SettlementReport) -> None:
            if generation >= self.state.generation:
                self._settling = False
                self._ring_faults = self._count_ring_faults()
            if death.reason:
                self._announce_death(death, settled, successor=rings is not None)

        self._driver.renew(self.queue, generation, rings, on_settled)

    def _count_ring_faults(self) -> int:
        """The driver's count. After a fault it does not poll the worker until new rings come."""
        return int(self.context.instance.books.slots[self.queue].ring_faults)

    def _announce_death(self, death: Death, settled: SettlementReport, *, successor: bool) -> None:
        lost = settled["lost"]
        packets = "1 packet" if lost == 1 else f"{lost} packets"
        sentence = f"{self.name} {death.describe()}; {packets} lost with it"
        if successor:
            self.context.announce(f"{sentence}, {settled['carried']} go to its successor")
        else:
            self.context.announce(
                f"{sentence}; it died {len(self.state.deaths)} times in {self._policy.period:g} s "
                f"and is given up: packets for queue {self.queue} are dropped"
            )

    def _publish(self) -> None:
        """Update what snapshots read."""
        source = self._source
        source.state, source.up = self.state.phase.value, self.state.phase is Phase.RUNNING
        source.pid, source.restarts = self.pid, self.state.restarts

    def _note_report(self, report: object) -> None:
        """Announce the remarks, the error and its traceback. Each remark and each traceback is
        announced once in a run, errors of one worker at most once a second."""
        if not isinstance(report, dict):
            return
        self.report = report
        remarks, error, now = report.get("remarks"), report.get("error"), time.monotonic()
        for remark in remarks if isinstance(remarks, list) else []:
            if isinstance(remark, str) and self.context.is_new(remark):
                self.context.announce(remark)
        if isinstance(error, str) and now - self._error_announced_at >= 1.0:
            self._error_announced_at = now
            self.context.announce(f"{self.name}: {error}")
        trace = report.get("trace")
        lines = [line for line in trace if isinstance(line, str)] if isinstance(trace, list) else []
        if lines and self.context.is_new("\n".join(lines)):
            for line in lines[:TRACE_LINES]:
                self.context.announce(line)

    def _note_timeout(self) -> None:
        if self.state.phase is Phase.PREPARING:
            self._death.fault = f"preparing took longer than {self._policy.prepare:g} s"
        elif self.state.phase is Phase.SETTING_UP:
            self._death.fault = f"setup took longer than {self._policy.setup:g} s"

    def _reason_to_refuse(self) -> RinglineError:
        """Why the run cannot start with this plugin."""
        if self._death.error is not None:
            return self._death.error
        plugin = self.context.config.worker(self.queue).plugin
        return PluginError(
            f"{self.name} with the plugin {plugin} {self._death.describe()} while it was made ready"
        )
