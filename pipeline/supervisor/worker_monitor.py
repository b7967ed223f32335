"""The supervisor's side of one worker slot: it does what the slot table decides.

What a worker says is not believed: words out of turn are ignored, and words that
make no sense are dropped.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.supervisor import worker_states
from ringline.pipeline.supervisor.driver_monitor import DriverMonitor
from ringline.pipeline.supervisor.instance import grant
from ringline.pipeline.supervisor.monitor import ERRORS, Monitor, RunContext
from ringline.pipeline.supervisor.worker_states import (
    Heartbeat,
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

THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class Death:
    """What is known of the end of one life: how, and what came before it."""

    how: str = ""
    error: RinglineError | None = None  # as the worker told it
    fault: str = ""  # as the supervisor saw it: "gave no sign of life for 1 s"

    def words(self) -> str:
        """The end of a sentence that begins with the worker's name."""
        why = str(self.error) if self.error is not None else self.fault
        return f"{self.how} ({why})" if why else self.how


class WorkerMonitor(Monitor):
    """The worker of one queue, life after life; `slot` is where the table has it.

    `silence` is the age in seconds at which a heartbeat means that it hangs.
    """

    def __init__(
        self,
        context: RunContext,
        program: Sequence[str],
        source: WorkerSource,
        driver: DriverMonitor,
        policy: RestartPolicy,
        silence: float,
    ) -> None:
        super().__init__(context, f"worker {source.queue}", program)
        self.queue = source.queue
        self.state = WorkerState()
        self.report: dict[str, Any] = {}
        self._source = source
        self._driver = driver
        self._policy = policy
        self._silence = silence
        # Once for all lives: the current folder may be removed meanwhile.
        self._environment = {**THREADS, **launch.environment()}
        self._beat = Heartbeat()
        self._death = Death()
        self._complained_at = 0.0
        self._ring_faults = 0  # that the driver had seen when these rings began
        self._settling = False  # the driver has not taken these rings yet

    def step(self, event: WorkerEvent) -> None:
        """Let the table decide, and do what it says."""
        if event is WorkerEvent.DEADLINE:
            self._note_what_was_late()
        self.state, actions = worker_states.step_worker(
            self.state, event, time.monotonic(), self._policy
        )
        try:
            for action in actions:
                self._perform(action)
        except (RinglineError, OSError) as error:  # OSError: no descriptors left, say
            if isinstance(error, OSError):
                error = EnvironmentLacks(str(error))
            self._death.error = error
            self.context.announce(f"{self.name}: {error}")
        self._publish()
        if self.state.alive and self.child is None:
            self._death.how = "could not be started"
            self.step(WorkerEvent.EXITED)

    def look(self, now: float, longest: float) -> None:
        """Look at the heartbeat, and at what the driver saw of its rings; `longest` seconds is
        the most that one look counts for."""
        if self.state.phase is not Phase.RUNNING:
            return
        self._beat = self._beat.look(self._source.slot.counters.heartbeat, now, longest)
        if self.deaf(now):
            self._death.fault = "closed its control socket"
        elif self._beat.silent > self._silence:
            self._death.fault = f"gave no sign of life for {self._silence:g} s"
        elif not self._settling and self._counted_ring_faults() != self._ring_faults:
            self._death.fault = "broke an index of its rings, or kept packets back"
        else:
            return
        self.context.announce(f"{self.name} {self._death.fault}; it is ended")
        self.step(WorkerEvent.SILENT)

    def environment(self) -> dict[str, str]:
        """Where modules are found; and no threads of libraries, which would take the
        driver's CPU, unless the user asks for them."""
        return self._environment

    def heard(self, what: str, message: Message) -> None:
        """A word of the worker's."""
        if what == "prepared":
            self.step(WorkerEvent.PREPARED)
        elif what == "ready":
            self._beat = Heartbeat(seen=time.monotonic())
            self.step(WorkerEvent.READY)
        elif what == "failed":
            error = message.get("error")
            self._death.error = revive(error if isinstance(error, dict) else {}, ERRORS)
            self.step(WorkerEvent.FAILED)
        elif what == "report":
            self._note_report(message.get("plugin"))

    def ended(self, how: str) -> None:
        """Its end is certain."""
        self._death.how = how
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
        elif action is WorkerAction.TELL_STOP:
            self.tell({"do": "stop"})
        elif action is WorkerAction.ABORT:
            self.signal(signal.SIGABRT)
        elif action is WorkerAction.KILL:
            self.signal(signal.SIGKILL)
        elif action is WorkerAction.REFUSE:
            self.context.fail(self._why_not())

    def _start(self) -> None:
        if self._source.generation != self.state.generation:
            self._renew_rings()  # they could not be had when it died
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
            self.tell(message, descriptors)

    def _renew_rings(self) -> None:
        generation = self.state.generation
        rings = self.context.instance.new_rings(self.queue, generation)
        self._source.rings, self._source.generation = rings, generation
        self._renew(generation, rings)

    def _renew(self, generation: int, rings: RingPair | None) -> None:
        death = self._death
        self._settling = True

        def settled(came_to: SettlementReport) -> None:
            if generation >= self.state.generation:
                self._settling = False
                self._ring_faults = self._counted_ring_faults()
            if death.how:
                self._tell_of(death, came_to, successor=rings is not None)

        self._driver.renew(self.queue, generation, rings, settled)

    def _counted_ring_faults(self) -> int:
        """After one the driver does not poll the worker any more, until it has new rings."""
        return int(self.context.instance.books.slots[self.queue].ring_faults)

    def _tell_of(self, death: Death, came_to: SettlementReport, *, successor: bool) -> None:
        lost = came_to["lost"]
        words = f"{self.name} {death.words()}; {lost} packet{'' if lost == 1 else 's'} lost with it"
        if successor:
            self.context.announce(f"{words}, {came_to['carried']} go to its successor")
        else:
            self.context.announce(
                f"{words}; it died {len(self.state.deaths)} times in {self._policy.period:g} s "
                f"and is given up: what arrives for queue {self.queue} is dropped"
            )

    def _publish(self) -> None:
        """Tell snapshots how the slot stands."""
        source = self._source
        source.state, source.up = self.state.phase.value, self.state.phase is Phase.RUNNING
        source.pid, source.restarts = self.pid, self.state.restarts

    def _note_report(self, report: object) -> None:
        """What the plugin or its process has to say. No worker gets more than one
        sentence a second to an operator."""
        if not isinstance(report, dict):
            return
        self.report = report
        remarks, error, now = report.get("remarks"), report.get("error"), time.monotonic()
        for remark in remarks if isinstance(remarks, list) else []:
            if isinstance(remark, str) and self.context.is_new(remark):
                self.context.announce(remark)
        if isinstance(error, str) and now - self._complained_at >= 1.0:
            self._complained_at = now
            self.context.announce(f"{self.name}: {error}")

    def _note_what_was_late(self) -> None:
        if self.state.phase is Phase.PREPARING:
            self._death.fault = f"preparing took longer than {self._policy.prepare:g} s"
        elif self.state.phase is Phase.SETTING_UP:
            self._death.fault = f"setup took longer than {self._policy.setup:g} s"

    def _why_not(self) -> RinglineError:
        """Why the run cannot start with this plugin."""
        if self._death.error is not None:
            return self._death.error
        plugin = self.context.config.worker(self.queue).plugin
        return PluginError(
            f"{self.name} with the plugin {plugin} {self._death.words()} while it was made ready"
        )
