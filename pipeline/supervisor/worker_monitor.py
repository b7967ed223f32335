"""The monitor of a worker: it does what the table in worker_states.py decides.

A worker is not trusted: messages at the wrong time are ignored, values of the wrong type are
dropped, its words are cut to what can be printed, and its slot is cleared when it was damaged.

Guarantees (tests in tests/pipeline/supervisor/test_supervisor.py):
 - a dead worker is replaced and the other worker processes run on
   (test_a_dead_worker_has_a_successor_and_the_others_do_not_notice)
 - a worker that hangs, closes its socket or sends garbage is replaced
   (test_a_faulty_worker_is_ended_and_replaced)
 - nonsense from a worker has no effect (test_nonsense_from_a_worker_has_no_effect)
 - the rings of an earlier generation are unlinked once they are settled
   (test_old_rings_are_unlinked_once_they_are_settled)
 - a successor finds a slot that it can use, whatever its predecessor wrote there
   (tests/pipeline/supervisor/test_wild_worker.py:
   test_a_damaged_slot_is_restored_for_the_successor, test_a_slot_that_is_damaged_again_is_cleared,
   test_a_slot_that_no_successor_can_use_is_cleared)
 - what a worker says is printable and short
   (tests/pipeline/supervisor/test_wild_worker.py: test_the_words_of_a_worker_are_cut)
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from ringline.pipeline.telemetry import observe
from ringline.pipeline.telemetry.observe import WorkerSource
from ringline.pipeline.telemetry.plugin_log import PluginLog
from ringline.pipeline.telemetry.untrusted import plain, words
from ringline.shm.control import Message, revive
from ringline.shm.errors import EnvironmentLacks, PluginError, RinglineError, reason_of
from ringline.shm.messages import SettlementReport, WorkerOpen
from ringline.shm.rings import RingPair
from ringline.shm.slot_guard import SlotGuard
from ringline.shm.text import counted
from ringline.workers.process import launch

MESSAGE_MAX = 256 << 10  # bytes: the longest messages are errors of compilers

# No threads of numeric libraries, which would use the driver's CPU.
THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

TRACE_LINES = 10  # of the traceback of a plugin's error


@dataclass
class Death:
    """Why one process of the worker ended; empty while it runs."""

    reason: str = ""  # "was ended by SIGKILL"
    error: RinglineError | None = None  # what the worker reported before
    fault: str = ""  # what the supervisor saw before: "made no progress for 1 s"

    def describe(self) -> str:
        """The end of a sentence that begins with the worker's name."""
        cause = str(self.error) if self.error is not None else self.fault
        return f"{self.reason} ({cause})" if cause else self.reason


class WorkerMonitor(Monitor):
    """The worker of one queue, in all its generations; `state` is its state in the table.

    It counts as hung after `silence` seconds (the configuration's) without a new heartbeat; in
    the first batch of a process, which may compile and load things, after `policy.prepare`.
    `source` is what snapshots read.
    """

    message_max = MESSAGE_MAX

    def __init__(
        self,
        context: RunContext,
        program: Sequence[str],
        source: WorkerSource,
        driver: DriverMonitor,
        policy: RestartPolicy,
    ) -> None:
        super().__init__(context, f"worker {source.queue}", program)
        self.queue = source.queue
        self.state = WorkerState()
        self.report: dict[str, Any] = {}
        self._source = source
        self._driver = driver
        self._policy = policy
        self._silence = context.config.worker(self.queue).silence
        # Read once: launch.environment() needs the current folder, which may be removed later.
        self._environment = {**THREADS, **launch.environment()}
        self._heartbeat = Heartbeat()
        self._served = (0, 0)  # batches begun and packets finished when the process was ready
        self._guard = SlotGuard(source.slot)
        self._restored = False  # the directory, after the last death
        self._death = Death()
        self._was_ready = False  # the present process, or the last one
        self._error_announced_at = 0.0
        self._log = PluginLog(self.name, source.plugin, context.announce)
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
                error = EnvironmentLacks(f"{self.name} could not be started: {reason_of(error)}")
            self._death.error = error
            self.context.announce(f"{self.name}: {error}")
        self._publish()
        if self.state.alive and self.child is None:
            self._death.reason = "could not be started"
            self.step(WorkerEvent.EXITED)

    def check(self, now: float, cap: float) -> None:
        """End the worker if it hangs, has closed its socket, or has broken its rings.

        A check that comes more than `cap` seconds after the last one adds no silence.
        """
        if self.state.phase is Phase.PREPARING:
            self._say_that_it_prepares(now)
        if self.state.phase is not Phase.RUNNING:
            return
        value = self._source.slot.counters.heartbeat
        self._heartbeat = self._heartbeat.check(value, now, cap)
        self._guard.note()
        if self.is_disconnected(now):
            self._death.fault = "closed its control socket"
        elif self._heartbeat.silence > self._silence_limit():
            self._death.fault = self._describe_silence()
        elif not self._settling and self._count_ring_faults() != self._ring_faults:
            self._death.fault = "published an invalid ring index or held too many packets"
        else:
            return
        self.context.announce(f"{self.name} {self._death.fault}; it is killed and replaced")
        self.step(WorkerEvent.SILENT)

    def _say_that_it_prepares(self, now: float) -> None:
        """Say once for each plugin why the start takes so long."""
        limit = self._policy.prepare
        if self.state.deadline is None or now < self.state.deadline - limit + self._policy.long:
            return
        plugin = self.context.config.worker(self.queue).plugin
        remark = (
            f"the plugin {plugin} is still being made ready (at most {limit:g} s); compiled "
            "Python is compiled at its first start, and comes from a cache later"
        )
        if self.context.is_new(remark):
            self.context.announce(remark)

    def excuse(self, seconds: float) -> None:
        """Extend the deadline of the phase by a pause of the machine."""
        if self.state.deadline is not None:
            self.state = replace(self.state, deadline=self.state.deadline + seconds)

    def environment(self) -> dict[str, str]:
        """The variables of the worker; the user's values take precedence over THREADS."""
        return self._environment

    def on_message(self, event: str, message: Message) -> None:
        """Handle a message of the worker: a FromWorker, if the worker works correctly."""
        if event == "prepared":
            self.step(WorkerEvent.PREPARED)
        elif event == "ready":
            self._was_ready = True
            self._source.note_version(message.get("version"))
            self._guard.note()
            self._heartbeat = Heartbeat(checked_at=time.monotonic())
            self._served = self._count_served()
            self._source.served = True
            self.step(WorkerEvent.READY)
        elif event == "failed":
            error = message.get("error")
            said = error if isinstance(error, dict) else {}
            told = {key: words(str(value)) for key, value in said.items()}
            self._death.error = revive(told, ERRORS)
            self.step(WorkerEvent.FAILED)
        elif event == "report":
            self._note_report(message.get("plugin"))
        elif event == "log":
            self._log.note(message, time.monotonic())

    def on_exit(self, reason: str) -> None:
        """Note the exit and ask the table."""
        self._death.reason = reason
        self._log.end()
        self._mend_slot()
        self.step(WorkerEvent.EXITED)

    def _mend_slot(self) -> None:
        """Clear what a wild write of the dead worker left in its slot."""
        damaged, again = self._guard.damaged(), self._restored
        self._restored = damaged
        if damaged and again:  # state that is kept may be the cause
            self._clear_slot("wrote over the directory of its slot again")
        elif damaged:
            self._guard.restore()
            self.context.announce(
                f"{self.name} wrote over the directory of its slot, which was restored"
            )
        if self._guard.impossible_counters(
            int(self.context.instance.books.slots[self.queue].pushed)
        ):
            self._guard.reset_counters()
            self.context.announce(f"{self.name} wrote over its counters: they begin at 0 again")

    def _clear_slot(self, why: str) -> None:
        self._guard.reset()
        self.context.announce(
            f"{self.name} {why}: its successor starts with an empty slot, so the plugin's "
            "counters, tables and state begin at 0 again"
        )

    def _perform(self, action: WorkerAction) -> None:
        if action is WorkerAction.RINGS:
            self._renew_rings()
        elif action is WorkerAction.NO_RINGS:
            self._source.rings = None
            self._renew(self.state.generation + 1, None)
        elif action is WorkerAction.BLANK_STATE and not self._was_ready:
            self._clear_slot("died repeatedly, and in its start")  # what it finds may be the cause
        elif action is WorkerAction.BLANK_STATE:
            self.context.announce(f"{self.name} died several times: its named state is set to zero")
            self._source.slot.clear_state()
        elif action is WorkerAction.SPAWN:
            self._start()
        elif action is WorkerAction.SEND_STOP:
            self.send({"do": "stop"})
        elif action is WorkerAction.ABORT:
            self.signal(signal.SIGABRT)
        elif action is WorkerAction.KILL:
            if self.state.phase is Phase.STOPPING:
                self.context.announce(f"{self.name} did not stop in time; it is killed")
            self.signal(signal.SIGKILL)
        elif action is WorkerAction.REFUSE:
            self.context.end_now(self._reason_to_refuse())

    def _start(self) -> None:
        if self._source.generation != self.state.generation:
            self._renew_rings()  # creating them failed when it died
        self._death, self._was_ready = Death(), False
        self.spawn()
        config, instance = self.context.config.worker(self.queue), self.context.instance
        place = self.context.places[self.name]
        message: WorkerOpen = {
            "do": "open",
            "queue": self.queue,
            "generation": self.state.generation,
            "plugin": config.plugin,
            "options": config.options,
            "places": config.option_places,
            "reasons": observe.note_reasons(self._source),
            "ports": [port.name for port in self.context.config.ports],
            "frame_max": self.context.config.frame_max,
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
        peers = [instance.slots[queue].segment for queue in self.context.config.peers(self.queue)]
        with grant(*segments, read_only=peers) as descriptors:
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

    def _count_served(self) -> tuple[int, int]:
        """The batches that the plugin got and the packets that it finished, in all its lives."""
        counters = self._source.slot.counters
        finished = counters.forwarded + counters.dropped
        return counters.batches, finished + counters.plugin_errors + counters.verdict_errors

    @property
    def _in_first_batch(self) -> bool:
        batches, finished = self._served
        return self._count_served() == (batches + 1, finished)

    def _silence_limit(self) -> float:
        """Seconds of silence that this worker may have now."""
        if self._in_first_batch:
            return max(self._policy.prepare, self._silence)
        return self._silence

    def _describe_silence(self) -> str:
        if self._in_first_batch:
            return (
                f"made no progress for {self._silence_limit():g} s: "
                "its plugin did not return from its first batch"
            )
        return (
            f"made no progress for {self._silence:g} s: its plugin did not return from a batch "
            "or tick; worker.silence in the configuration is the limit"
        )

    def _count_ring_faults(self) -> int:
        """The driver's count. After a fault it does not poll the worker until new rings come."""
        return int(self.context.instance.books.slots[self.queue].ring_faults)

    def _announce_death(self, death: Death, settled: SettlementReport, *, successor: bool) -> None:
        lost = settled["lost"]
        sentence = (
            f"{self.name} {death.describe()}; {counted(lost, 'buffer')} of packets and blanks lost"
        )
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
        announced once in a run, errors of one worker at most once a second, or with a traceback
        that is new."""
        if not isinstance(report, dict):
            return
        self.report = plain(report)
        remarks, error = self.report.get("remarks"), self.report.get("error")
        now = time.monotonic()
        for remark in remarks if isinstance(remarks, list) else []:
            if isinstance(remark, str) and self.context.is_new(remark):
                self.context.announce(remark)
        trace = report.get("trace")
        lines = [line for line in trace if isinstance(line, str)] if isinstance(trace, list) else []
        if lines and not self.context.is_new("\n".join(lines)):
            lines = []
        if isinstance(error, str) and (lines or now - self._error_announced_at >= 1.0):
            self._error_announced_at = now
            self.context.announce(f"{self.name}: {error}")
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
