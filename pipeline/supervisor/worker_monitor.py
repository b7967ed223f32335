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
from ringline.pipeline.supervisor.driver_monitor import DriverKeeper
from ringline.pipeline.supervisor.instance import grant
from ringline.pipeline.supervisor.monitor import ERRORS, House, Keeper
from ringline.pipeline.supervisor.worker_states import Action, Beat, Event, Phase, Policy, Slot
from ringline.pipeline.telemetry.observe import WorkerSource
from ringline.shm.control import Message, revive
from ringline.shm.errors import EnvironmentLacks, PluginError, RinglineError
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


class WorkerKeeper(Keeper):
    """The worker of one queue, life after life; `slot` is where the table has it.

    `silence` is the age in seconds at which a heartbeat means that it hangs.
    """

    def __init__(
        self,
        house: House,
        program: Sequence[str],
        source: WorkerSource,
        driver: DriverKeeper,
        policy: Policy,
        silence: float,
    ) -> None:
        super().__init__(house, f"worker {source.queue}", program)
        self.queue = source.queue
        self.slot = Slot()
        self.report: dict[str, Any] = {}
        self._source = source
        self._driver = driver
        self._policy = policy
        self._silence = silence
        # Once for all lives: the current folder may be removed meanwhile.
        self._environment = {**THREADS, **launch.environment()}
        self._beat = Beat()
        self._death = Death()
        self._complained_at = 0.0
        self._ring_faults = 0  # that the driver had seen when these rings began
        self._settling = False  # the driver has not taken these rings yet

    def step(self, event: Event) -> None:
        """Let the table decide, and do what it says."""
        if event is Event.DEADLINE:
            self._note_what_was_late()
        self.slot, actions = worker_states.step(self.slot, event, time.monotonic(), self._policy)
        try:
            for action in actions:
                self._perform(action)
        except (RinglineError, OSError) as error:  # OSError: no descriptors left, say
            if isinstance(error, OSError):
                error = EnvironmentLacks(str(error))
            self._death.error = error
            self.house.announce(f"{self.name}: {error}")
        self._publish()
        if self.slot.alive and self.child is None:
            self._death.how = "could not be started"
            self.step(Event.EXITED)

    def look(self, now: float, longest: float) -> None:
        """Look at the heartbeat, and at what the driver saw of its rings; `longest` seconds is
        the most that one look counts for."""
        if self.slot.phase is not Phase.RUNNING:
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
        self.house.announce(f"{self.name} {self._death.fault}; it is ended")
        self.step(Event.SILENT)

    def environment(self) -> dict[str, str]:
        """Where modules are found; and no threads of libraries, which would take the
        driver's CPU, unless the user asks for them."""
        return self._environment

    def heard(self, what: str, message: Message) -> None:
        """A word of the worker's."""
        if what == "prepared":
            self.step(Event.PREPARED)
        elif what == "ready":
            self._beat = Beat(seen=time.monotonic())
            self.step(Event.READY)
        elif what == "failed":
            error = message.get("error")
            self._death.error = revive(error if isinstance(error, dict) else {}, ERRORS)
            self.step(Event.FAILED)
        elif what == "report":
            self._note_report(message.get("plugin"))

    def ended(self, how: str) -> None:
        """Its end is certain."""
        self._death.how = how
        self.step(Event.EXITED)

    def _perform(self, action: Action) -> None:
        if action is Action.RINGS:
            self._renew_rings()
        elif action is Action.NO_RINGS:
            self._source.rings = None
            self._renew(self.slot.generation + 1, None)
        elif action is Action.BLANK_STATE:
            self.house.announce(f"{self.name} died repeatedly: it starts with blank state")
            self._source.slot.clear_state()
        elif action is Action.SPAWN:
            self._start()
        elif action is Action.TELL_STOP:
            self.tell({"do": "stop"})
        elif action is Action.ABORT:
            self.signal(signal.SIGABRT)
        elif action is Action.KILL:
            self.signal(signal.SIGKILL)
        elif action is Action.REFUSE:
            self.house.fail(self._why_not())

    def _start(self) -> None:
        if self._source.generation != self.slot.generation:
            self._renew_rings()  # they could not be had when it died
        self._death = Death()
        self.spawn()
        config, instance = self.house.config.worker(self.queue), self.house.instance
        place = self.house.places[self.name]
        message = {
            "do": "open",
            "queue": self.queue,
            "generation": self.slot.generation,
            "plugin": config.plugin,
            "options": config.options,
            "ports": [port.name for port in self.house.config.ports],
            "folder": self.house.config.folder,
            "state_bytes": config.state_bytes,
            "blanks": config.blanks,
            "debug": config.debug,
            "idle": self.house.config.driver.idle,
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
        generation = self.slot.generation
        rings = self.house.instance.new_rings(self.queue, generation)
        self._source.rings, self._source.generation = rings, generation
        self._renew(generation, rings)

    def _renew(self, generation: int, rings: RingPair | None) -> None:
        death = self._death
        self._settling = True

        def settled(came_to: dict[str, int]) -> None:
            if generation >= self.slot.generation:
                self._settling = False
                self._ring_faults = self._counted_ring_faults()
            if death.how:
                self._tell_of(death, came_to, successor=rings is not None)

        self._driver.renew(self.queue, generation, rings, settled)

    def _counted_ring_faults(self) -> int:
        """After one the driver does not poll the worker any more, until it has new rings."""
        return int(self.house.instance.books.slots[self.queue].ring_faults)

    def _tell_of(self, death: Death, came_to: dict[str, int], *, successor: bool) -> None:
        lost = came_to["lost"]
        words = f"{self.name} {death.words()}; {lost} packet{'' if lost == 1 else 's'} lost with it"
        if successor:
            self.house.announce(f"{words}, {came_to['carried']} go to its successor")
        else:
            self.house.announce(
                f"{words}; it died {len(self.slot.deaths)} times in {self._policy.period:g} s "
                f"and is given up: what arrives for queue {self.queue} is dropped"
            )

    def _publish(self) -> None:
        """Tell snapshots how the slot stands."""
        source = self._source
        source.state, source.up = self.slot.phase.value, self.slot.phase is Phase.RUNNING
        source.pid, source.restarts = self.pid, self.slot.restarts

    def _note_report(self, report: object) -> None:
        """What the plugin or its process has to say. No worker gets more than one
        sentence a second to an operator."""
        if not isinstance(report, dict):
            return
        self.report = report
        remarks, error, now = report.get("remarks"), report.get("error"), time.monotonic()
        for remark in remarks if isinstance(remarks, list) else []:
            if isinstance(remark, str) and self.house.is_new(remark):
                self.house.announce(remark)
        if isinstance(error, str) and now - self._complained_at >= 1.0:
            self._complained_at = now
            self.house.announce(f"{self.name}: {error}")

    def _note_what_was_late(self) -> None:
        if self.slot.phase is Phase.PREPARING:
            self._death.fault = f"preparing took longer than {self._policy.prepare:g} s"
        elif self.slot.phase is Phase.SETTING_UP:
            self._death.fault = f"setup took longer than {self._policy.setup:g} s"

    def _why_not(self) -> RinglineError:
        """Why the run cannot start with this plugin."""
        if self._death.error is not None:
            return self._death.error
        plugin = self.house.config.worker(self.queue).plugin
        return PluginError(
            f"{self.name} with the plugin {plugin} {self._death.words()} while it was made ready"
        )
