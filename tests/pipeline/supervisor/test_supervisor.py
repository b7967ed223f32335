"""Guarantees of the supervisor, tested with a fake driver and fake workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import (
    Config,
    MemoryConfig,
    MetricsConfig,
    PortConfig,
    RestartConfig,
    WorkerConfig,
)
from ringline.pipeline.supervisor.children import Programs
from ringline.pipeline.supervisor.event_loop import Loop, Service
from ringline.pipeline.supervisor.instance import Instance
from ringline.pipeline.supervisor.outcome import Outcome
from ringline.pipeline.supervisor.run_states import Timeouts
from ringline.pipeline.supervisor.supervisor import Supervisor
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import (
    BooksError,
    EnvironmentLacks,
    GaveUp,
    HardwareError,
    PluginError,
    RinglineError,
)
from ringline.shm.segments import segments_of

FAKES = Path(__file__).parent / "fakes"

FAST = RestartPolicy(
    intensity=3, period=60.0, prepare=20.0, setup=20.0, grace=0.1, stop=20.0, backoff=0.01
)
IMPATIENT = replace(FAST, stop=0.3)
SHORT = Timeouts(open=20.0, drain=2.0, hurry=0.2, grace=0.1, kill=2.0, close=2.0, dismiss=1.0)


def children_of(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


class Trial:
    """A supervisor with fake children, and what it announced."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.announced: list[str] = []
        self.dma_stopped: list[str] = []
        self.snapshots: list[Snapshot] = []
        self.on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None
        self.failed: AssertionError | None = None

    def run(
        self,
        *plugins: str,
        driver: str = "well",
        seconds: float | None = 0.0,
        policy: RestartPolicy = FAST,
        timeouts: Timeouts = SHORT,
        silence: float = 5.0,
        device: str = "sim:82599",
        more: Sequence[PortConfig] = (),
        services: Sequence[Service] = (),
    ) -> Outcome:
        config = Config(
            name=self.name,
            memory=MemoryConfig(hugepages="off"),  # the same on every machine
            ports=(PortConfig("wan", device, queues=len(plugins)), *more),
            workers=tuple(WorkerConfig(plugin, silence=silence) for plugin in plugins),
            restart=RestartConfig(),
            metrics=MetricsConfig(host=None),
        )
        python = (sys.executable, "-P")
        supervisor = Supervisor(
            config,
            seconds=seconds,
            announce=self.announced.append,
            display=self._display,
            services=services,
            programs=Programs(
                driver=(*python, str(FAKES / "driver.py"), driver),
                worker=(*python, str(FAKES / "worker.py")),
            ),
            policy=policy,
            timeouts=timeouts,
            stop_dma=self.dma_stopped.append,
        )
        before = children_of(os.getpid())
        self.started = time.monotonic()
        outcome = supervisor.run()
        assert segments_of(self.name) == [], "segments were left"
        assert children_of(os.getpid()) == before, "children were left"
        if self.failed is not None:
            raise self.failed
        return outcome

    def _display(self, snapshot: Snapshot) -> None:
        try:
            assert time.monotonic() - self.started < 60.0, f"still {snapshot.state}"
            self.snapshots.append(snapshot)
            self.on_snapshot(snapshot)
        except AssertionError as error:  # it would not end the run
            self.failed = self.failed or error
            os.kill(os.getpid(), signal.SIGTERM)

    def until(self, condition: Callable[[Snapshot], bool]) -> None:
        """End the run by SIGTERM, as a service manager does, once `condition` holds."""

        def check(snapshot: Snapshot) -> None:
            if condition(snapshot):
                os.kill(os.getpid(), signal.SIGTERM)
                self.on_snapshot = lambda snapshot: None

        self.on_snapshot = check


@pytest.fixture
def trial(instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr("ringline.pipeline.supervisor.publisher.DISPLAY_EVERY", 0.02)
    return Trial(instance())


def raised(outcome: Outcome) -> RinglineError | None:
    return outcome.error


def test_an_orderly_run_ends_well(trial: Trial) -> None:
    outcome = trial.run("well", "reports")
    assert raised(outcome) is None
    assert trial.announced == []
    assert outcome.reports == {1: {"top": [1, 2, 3]}}
    assert outcome.snapshot is not None
    assert outcome.snapshot.balanced
    assert outcome.snapshot.ports[0].link_up


def test_a_run_ends_when_the_wire_is_dry(trial: Trial) -> None:
    assert raised(trial.run("well", driver="finishes", seconds=None)) is None


def test_a_signal_that_was_ignored_stays_ignored(trial: Trial) -> None:
    """As nohup requires."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        trial.on_snapshot = lambda snapshot: os.kill(os.getpid(), signal.SIGHUP)
        start = time.monotonic()
        assert raised(trial.run("well", seconds=0.5)) is None
        assert time.monotonic() - start >= 0.5
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_ends_on_a_signal(trial: Trial) -> None:
    trial.until(lambda snapshot: snapshot.state == "running")
    assert raised(trial.run("well", seconds=None)) is None


@pytest.mark.parametrize("plugin", ["fails_prepare", "fails_setup"])
def test_a_plugin_that_fails_at_first_refuses_the_run(trial: Trial, plugin: str) -> None:
    outcome = trial.run("well", plugin, seconds=None)
    assert isinstance(outcome.error, PluginError)
    assert plugin in str(outcome.error)


def test_a_worker_that_dies_at_first_refuses_the_run(trial: Trial) -> None:
    outcome = trial.run("dies_at_first", "well", seconds=None)
    assert isinstance(outcome.error, PluginError)
    assert str(outcome.error) == (
        "worker 0 with the plugin dies_at_first was ended by SIGKILL while it was made ready"
    )


def test_a_plugin_that_takes_too_long_refuses_the_run(trial: Trial) -> None:
    outcome = trial.run("late", seconds=None, policy=replace(FAST, prepare=0.3))
    assert isinstance(outcome.error, PluginError)
    assert "preparing took longer than 0.3 s" in str(outcome.error)
    assert trial.announced == []


def test_a_long_start_is_explained_once(trial: Trial) -> None:
    trial.run("late", "late", seconds=None, policy=replace(FAST, prepare=1.0, long=0.2))
    (said,) = [line for line in trial.announced if "is still being made ready" in line]
    assert said.startswith("the plugin ")


def test_a_dead_worker_has_a_successor_and_the_others_do_not_notice(trial: Trial) -> None:
    def replaced(snapshot: Snapshot) -> bool:
        return snapshot.workers[1].up and snapshot.workers[1].generation == 2

    trial.until(replaced)
    outcome = trial.run("well", "dies_once", "well", seconds=None)
    assert raised(outcome) is None
    assert outcome.snapshot is not None
    assert [worker.generation for worker in outcome.snapshot.workers] == [1, 2, 1]
    assert [worker.restarts for worker in outcome.snapshot.workers] == [0, 1, 0]
    assert trial.announced == [
        "worker 1 was ended by SIGKILL; 3 buffers of packets and blanks lost, 2 go to its successor"
    ]


def test_old_rings_are_unlinked_once_they_are_settled(trial: Trial) -> None:
    rings: list[list[str]] = []

    def look(snapshot: Snapshot) -> bool:
        names = [path.partition(".rings.")[2] for path in segments_of(trial.name)]
        rings.append(sorted(name for name in names if name))
        return len(trial.announced) == 1  # the death is settled

    trial.until(look)
    trial.run("well", "dies_once", seconds=None)
    assert rings[-1] == ["0.1", "1.2"]


def test_a_queue_whose_worker_keeps_dying_is_given_up_and_the_rest_runs_on(trial: Trial) -> None:
    trial.until(lambda snapshot: snapshot.workers[0].state == "given up")
    outcome = trial.run("dies_always", "well", seconds=None)
    assert isinstance(outcome.error, GaveUp)
    assert "queue 0 was given up" in str(outcome.error)
    assert outcome.snapshot is not None
    assert outcome.snapshot.workers[0].restarts == FAST.intensity
    assert outcome.snapshot.workers[1].restarts == 0
    assert "worker 0 died several times: its named state is set to zero" in trial.announced
    assert "it died 4 times in 60 s and is given up" in trial.announced[-1]


def test_counters_survive_deaths_and_suspected_state_does_not(trial: Trial) -> None:
    lives: list[int] = []

    def look(snapshot: Snapshot) -> bool:
        lives.extend(named(snapshot, "lives"))
        return snapshot.workers[0].state == "given up"

    trial.until(look)
    outcome = trial.run("dies_always", "well", seconds=None)
    assert lives == sorted(lives), "a counter stepped back"
    assert outcome.snapshot is not None
    assert named(outcome.snapshot, "lives") == [FAST.intensity + 1]
    # The state was kept until the third death and cleared after it.
    assert FAST.blank_after == FAST.intensity
    assert named(outcome.snapshot, "remembered") == [1]


def named(snapshot: Snapshot, name: str) -> list[int]:
    return [metric.value for metric in snapshot.workers[0].metrics if metric.name == name]


def test_when_all_queues_are_given_up_the_run_ends(trial: Trial) -> None:
    outcome = trial.run("dies_always", "dies_always", seconds=None)
    assert isinstance(outcome.error, GaveUp)
    assert outcome.error.exit_code == 4


@pytest.mark.parametrize(
    ("plugin", "why"),
    [
        ("hangs", "made no progress for 0.3 s"),
        ("deaf", "closed its control socket"),
        ("garbles", "a control message is not a JSON object"),
    ],
)
def test_a_faulty_worker_is_ended_and_replaced(trial: Trial, plugin: str, why: str) -> None:
    trial.until(lambda snapshot: snapshot.workers[0].up and snapshot.workers[0].generation == 2)
    silence = 0.3 if plugin == "hangs" else 5.0
    assert raised(trial.run(plugin, "well", seconds=None, silence=silence)) is None
    told = "\n".join(line for line in trial.announced if line.startswith("worker 0"))
    assert why in told
    assert "3 buffers of packets and blanks lost" in told


def test_nonsense_from_a_worker_has_no_effect(trial: Trial) -> None:
    assert raised(trial.run("chatters", "well", seconds=0.5)) is None


def test_the_death_of_the_driver_ends_the_run(trial: Trial) -> None:
    killed: list[int] = []

    def kill(snapshot: Snapshot) -> None:
        if snapshot.state == "running" and snapshot.driver_pid and not killed:
            killed.append(snapshot.driver_pid)
            os.kill(snapshot.driver_pid, signal.SIGKILL)

    trial.on_snapshot = kill
    outcome = trial.run("well", "well", seconds=None)
    assert isinstance(outcome.error, GaveUp)
    assert "the driver was ended by SIGKILL" in str(outcome.error)
    assert outcome.snapshot is not None
    assert outcome.snapshot.balanced


def test_a_driver_that_dies_while_it_drains_is_no_different(trial: Trial) -> None:
    outcome = trial.run("well", driver="crashes")
    assert isinstance(outcome.error, GaveUp)
    assert "exited with status 1" in str(outcome.error)


def test_a_driver_that_refuses_is_quoted(trial: Trial) -> None:
    outcome = trial.run("well", driver="refuses", seconds=None)
    assert isinstance(outcome.error, HardwareError)
    assert str(outcome.error) == "port wan: no link flag after 10 s"


def test_a_driver_that_never_gets_ready_is_ended_in_time(trial: Trial) -> None:
    outcome = trial.run("well", driver="mute", seconds=None, timeouts=replace(SHORT, open=0.5))
    assert isinstance(outcome.error, HardwareError)
    assert "did not open its ports within 0.5 s: wan (sim:82599)" in str(outcome.error)


def test_a_driver_that_hangs_is_ended(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringline.pipeline.supervisor.driver_monitor.DRIVER_HEARTBEAT_TIMEOUT", 0.3)
    outcome = trial.run("well", driver="hangs", seconds=None, silence=0.3)
    assert isinstance(outcome.error, GaveUp)
    assert "made no progress for 0.3 s and was ended" in str(outcome.error)


def test_a_driver_that_does_not_settle_is_ended(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringline.pipeline.supervisor.driver_monitor.SETTLE_TIMEOUT", 0.2)
    outcome = trial.run("dies_once", driver="forgets", seconds=None, silence=0.3)
    assert isinstance(outcome.error, GaveUp)
    assert "did not settle queue 0 in 0.2 s" in str(outcome.error)


def test_a_driver_that_closes_its_socket_is_ended(trial: Trial) -> None:
    outcome = trial.run("well", driver="deaf", seconds=None, silence=0.3)
    assert isinstance(outcome.error, GaveUp)
    assert "closed its control socket" in str(outcome.error)


def test_a_driver_that_does_not_stop_is_killed_and_its_books_are_settled(trial: Trial) -> None:
    # It ignores SIGABRT. Without SIGKILL the run would take 300 s.
    outcome = trial.run("well", driver="stubborn", timeouts=replace(SHORT, close=0.2, kill=300.0))
    assert isinstance(outcome.error, HardwareError)
    assert outcome.snapshot is not None
    assert outcome.snapshot.balanced
    assert "packets were in flight when the driver died" in trial.announced[-1]


def test_books_that_do_not_balance_are_an_error(trial: Trial) -> None:
    outcome = trial.run("well", driver="miscounts")
    assert isinstance(outcome.error, BooksError)
    assert str(outcome.error) == "the books do not balance: buffers is off by -7"


@pytest.mark.parametrize("driver", ["crashes", "well"])
def test_dma_stops_when_the_driver_did_not_stop_its_cards(trial: Trial, driver: str) -> None:
    outcome = trial.run("well", driver=driver, device="pci:0000:99:00.0")
    assert (outcome.error is None) == (driver == "well")
    assert trial.dma_stopped == (["0000:99:00.0"] if driver == "crashes" else [])


def test_a_card_that_the_driver_did_not_take_is_not_stopped(trial: Trial) -> None:
    outcome = trial.run("well", driver="crashes", device="pci:0000:99:00.1")
    assert outcome.error is not None
    assert trial.dma_stopped == []


def test_descriptor_memory_names_no_card_before_the_driver_takes_one(
    instance: Callable[[], str],
) -> None:
    port = PortConfig("wan", "pci:0000:99:00.0")
    config = Config(name=instance(), ports=(port,), workers=(WorkerConfig(),))
    with Instance(config, lambda address: None) as made:
        assert made.descriptors.segment.pci == []


def test_a_control_turn_can_be_requested(instance: Callable[[], str]) -> None:
    with Instance(Config(name=instance()), lambda address: None) as made:
        before = made.books.request
        made.request_control_turn()
        assert made.books.request == before + 1


def test_a_worker_that_does_not_stop_is_killed(trial: Trial) -> None:
    assert raised(trial.run("stubborn", "well", policy=IMPATIENT)) is None


def test_a_second_signal_hurries(trial: Trial) -> None:
    """Less time is left for the stubborn worker than after the first signal."""
    sent: list[float] = []

    def twice(snapshot: Snapshot) -> None:
        if snapshot.state in ("running", "retiring") and len(sent) < 2:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    trial.on_snapshot = twice
    patient = replace(FAST, stop=60.0)
    assert raised(trial.run("stubborn", seconds=None, policy=patient)) is None
    assert time.monotonic() - sent[0] < 30.0


def test_an_instance_that_runs_refuses_a_second(trial: Trial) -> None:
    refused: list[Outcome] = []
    rival = Trial(trial.name)

    def second(snapshot: Snapshot) -> bool:
        if snapshot.state == "running" and not refused:
            # Refused even in the same process: the lock belongs to the open file.
            refused.append(Supervisor(Config(name=rival.name, metrics=MetricsConfig(None))).run())
        return bool(refused)

    trial.until(second)
    assert raised(trial.run("well", seconds=None)) is None
    assert isinstance(refused[0].error, EnvironmentLacks)
    assert "already runs" in str(refused[0].error)


def test_services_of_the_caller_are_served_and_left_open(trial: Trial) -> None:
    read, write = os.pipe()
    taken: list[bytes] = []

    class Pipe:
        deadline = None

        def fileno(self) -> int:
            return read

        def turn(self) -> None:
            taken.append(os.read(read, 100))

        def close(self) -> None:
            taken.append(b"closed")

    os.write(write, b"printed")
    trial.until(lambda snapshot: bool(taken))
    assert raised(trial.run("well", seconds=None, services=[Pipe()])) is None
    assert taken == [b"printed"]
    os.close(read)
    os.close(write)


def test_an_idle_supervisor_wakes_up_rarely(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most three times a second, messages of the driver included."""
    turns: list[float] = []
    turn = Loop.turn

    def counted(loop: Loop, deadlines: list[float | None]) -> float:
        late = turn(loop, deadlines)
        turns.append(time.monotonic())
        return late

    monkeypatch.setattr(Loop, "turn", counted)
    monkeypatch.setattr("ringline.pipeline.supervisor.publisher.DISPLAY_EVERY", 600.0)
    assert raised(trial.run("well", "well", seconds=4.0, silence=WorkerConfig().silence)) is None
    # Count two seconds in the middle: the start and the end are busier.
    assert len([at for at in turns if turns[-1] - 3.0 < at < turns[-1] - 1.0]) <= 3 * 2


def test_a_display_that_is_closed_ends_nothing(trial: Trial) -> None:
    def broken(snapshot: Snapshot) -> None:
        raise BrokenPipeError

    trial.on_snapshot = broken
    assert raised(trial.run("well", seconds=0.3)) is None
    assert len(trial.snapshots) == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["opening", "running", "draining", "retiring", "closing"])
def test_nothing_is_left_however_it_ends(trial: Trial, moment: str) -> None:
    """After an exception in the supervisor at any stage, no child and no segment is left."""

    class Unexpected(BaseException):
        pass

    def fail(snapshot: Snapshot) -> None:
        if snapshot.state == moment:
            raise Unexpected

    trial.on_snapshot = fail
    before, handler = children_of(os.getpid()), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Unexpected):
        trial.run("well", "stubborn", seconds=0.1, driver="stubborn", policy=IMPATIENT)
    assert segments_of(trial.name) == []
    assert children_of(os.getpid()) == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_nothing_is_open_afterwards(trial: Trial) -> None:
    trial.run("well")  # imports modules and fills caches
    before = sorted(os.listdir("/proc/self/fd"))
    trial.run("well", "dies_once")
    assert sorted(os.listdir("/proc/self/fd")) == before
