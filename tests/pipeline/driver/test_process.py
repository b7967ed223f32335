"""The driver process, run in a thread. The test takes the place of the supervisor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

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
from ringline.shm.control import Control, Message

TIMEOUT = 30.0  # seconds


class DriverHarness:
    """A running driver. `ours` is the supervisor's end of the control channel."""

    def __init__(self, instance: Instance) -> None:
        self.books: Any = instance.books
        self.ours, theirs = Control.pair()
        self._theirs = Control(theirs)
        self._thread = threading.Thread(target=process.Driver(self._theirs).run)
        self._thread.start()
        with grant(instance.descriptors.segment, instance.packets.segment, instance.lane) as given:
            config = instance.config.to_json()
            self.ours.send({"do": "open", "config": config, "yield": False}, given)
        self.wait_for("opened")
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
