"""The driver process, run in a thread. The test takes the place of the supervisor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ringline.pipeline.configuration.config import (
    Config,
    FlowsConfig,
    MemoryConfig,
    PortConfig,
    WireConfig,
    WorkerConfig,
)
from ringline.pipeline.driver import process
from ringline.pipeline.supervisor.instance import Instance, grant
from ringline.shm._shm import lib
from ringline.shm.control import Control, Message
from ringline.shm.rings import RingEnd, RingPair

if TYPE_CHECKING:
    from ringline.shm.rings import Reference

TIMEOUT = 30.0  # seconds


class DriverHarness:
    """A running driver. `ours` is the supervisor's end of the control channel."""

    def __init__(self, instance: Instance, worker: RingPair | None = None) -> None:
        self.books: Any = instance.books
        self.ours, theirs = Control.pair()
        self._theirs = Control(theirs)
        self._thread = threading.Thread(target=process.Driver(self._theirs).run)
        self._thread.start()
        with grant(instance.descriptors.segment, instance.packets.segment, instance.lane) as given:
            config = instance.config.to_json()
            self.ours.send({"do": "open", "config": config, "yield": False}, given)
        self.wait_for("opened")
        if worker is not None:
            with grant(worker.segment) as given:
                self.ours.send({"do": "renew", "queue": 0, "generation": 1}, given)
            self.wait_for("renewed")
        self.ours.send({"do": "begin"})
        self.wait_for("ready")

    def wait_for(self, event: str) -> Message:
        """Receive messages until one reports `event`; return it."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            received = self.ours.receive(1.0)
            if received is not None and received[0]["event"] == event:
                return received[0]
        raise AssertionError(f"the driver did not report {event!r}")

    def events_of_turns(self, turns: int) -> set[str]:
        """All events until the driver has sent statistics in `turns` more turns."""
        events = set()
        end = time.monotonic() + TIMEOUT
        while turns and time.monotonic() < end:
            received = self.ours.receive(1.0)
            if received is not None:
                events.add(str(received[0]["event"]))
                turns -= received[0]["event"] == "ports"
        assert not turns, "the driver sends no statistics"
        return events

    def wait_turns(self, turns: int) -> None:
        """Wait until the heartbeat has changed `turns` times, without receiving."""
        end = time.monotonic() + TIMEOUT
        while turns and self._thread.is_alive() and time.monotonic() < end:
            before = self.books.lane.heartbeat
            time.sleep(0.001)
            turns -= before != self.books.lane.heartbeat
        assert self._thread.is_alive(), "the driver ended"
        assert not turns, "the driver made no turns"

    def close(self) -> None:
        self.books = None
        self.ours.close()
        self._thread.join()
        self._theirs.close()


@pytest.fixture
def driver(instance: Callable[[], str]) -> Iterator[DriverHarness]:
    flows = WireConfig(flows=FlowsConfig(count=4))
    config = Config(
        name=instance(),
        memory=MemoryConfig(hugepages="off"),
        ports=(PortConfig("wan", "sim:82599", wire=flows),),
        workers=(WorkerConfig(),),
    )
    with Instance(config, lambda address: None) as segments:
        harness = DriverHarness(segments)
        yield harness
        harness.close()


def test_a_supervisor_that_does_not_read_does_not_stop_the_driver(
    driver: DriverHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z stops a supervisor, for example: the driver omits statistics and answers later."""
    monkeypatch.setattr(process, "STATISTICS_EVERY", 0.0)
    monkeypatch.setattr(process, "TURN", 0.001)
    monkeypatch.setattr(process, "IDLE_TURN", 0.001)
    driver.wait_turns(400)
    driver.ours.send({"do": "stop"})
    assert driver.wait_for("stopped")["report"]["ports"][0]["name"] == "wan"


def test_the_driver_looks_at_its_ports_when_it_is_told(
    driver: DriverHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STATISTICS_EVERY", 3600.0)
    for _ in range(5):
        driver.ours.send({"do": "look"})
        driver.wait_for("ports")


PACKETS = 10


@pytest.fixture
def turning(
    instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[DriverHarness, RingPair]]:
    """A driver that sends statistics in every turn, with `PACKETS` packets and one worker, whose
    part the test takes."""
    for name, seconds in (("STATISTICS_EVERY", 0.0), ("TURN", 0.001), ("IDLE_TURN", 0.001)):
        monkeypatch.setattr(process, name, seconds)
    flows = WireConfig(flows=FlowsConfig(count=4, packets=PACKETS))
    config = Config(
        name=instance(),
        memory=MemoryConfig(hugepages="off"),
        ports=(PortConfig("wan", "sim:82599", wire=flows),),
        workers=(WorkerConfig(),),
    )
    with Instance(config, lambda address: None) as segments:
        rings = segments.new_rings(0, 1)
        harness = DriverHarness(segments, rings)
        yield harness, rings
        harness.close()


def take_all(in_: RingEnd) -> list[Reference]:
    taken: list[Reference] = []
    end = time.monotonic() + TIMEOUT
    while len(taken) < PACKETS:
        assert time.monotonic() < end, f"{len(taken)} packets arrived"
        taken += in_.pop(PACKETS)
    return taken


def drop(out: RingEnd, references: list[Reference]) -> None:
    dropped = [(*one[:5], lib.RL_VERDICT_DROP, one[6]) for one in references]
    assert out.push(dropped) == len(dropped)


def test_the_driver_is_finished_only_when_nothing_is_in_flight(
    turning: tuple[DriverHarness, RingPair],
) -> None:
    driver, rings = turning
    out = RingEnd(rings.out)
    packets = take_all(RingEnd(rings.in_))
    assert driver.events_of_turns(50) == {"ports"}, "a worker still has every packet"
    drop(out, packets[:-1])
    assert driver.events_of_turns(50) == {"ports"}, "a worker still has one packet"
    drop(out, packets[-1:])
    driver.wait_for("finished")


def test_the_driver_is_drained_only_when_nothing_is_in_flight(
    turning: tuple[DriverHarness, RingPair],
) -> None:
    driver, rings = turning
    packets = take_all(RingEnd(rings.in_))
    driver.ours.send({"do": "drain", "seconds": 1000.0})
    assert "drained" not in driver.events_of_turns(50)
    drop(RingEnd(rings.out), packets)
    assert driver.wait_for("drained")["in_flight"] == 0


def test_a_drain_ends_at_its_deadline_with_the_number_of_packets_in_flight(
    turning: tuple[DriverHarness, RingPair],
) -> None:
    driver, rings = turning
    take_all(RingEnd(rings.in_))
    driver.ours.send({"do": "drain", "seconds": 0.01})
    assert driver.wait_for("drained")["in_flight"] == PACKETS
