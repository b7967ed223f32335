"""Promises of the driver process, run in a thread that a test speaks to as a supervisor would."""

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

SECONDS = 30.0  # after which something hangs


class Driven:
    """A driver whose cards receive; `ours` is the supervisor's end."""

    def __init__(self, instance: Instance) -> None:
        self.books: Any = instance.books
        self.ours, theirs = Control.pair()
        self._theirs = Control(theirs)
        self._thread = threading.Thread(target=process.Driver(self._theirs).run)
        self._thread.start()
        with grant(instance.descriptors.segment, instance.packets.segment, instance.lane) as given:
            config = instance.config.to_json()
            self.ours.send({"do": "open", "config": config, "yield": False}, given)
        self.hear("opened")
        self.ours.send({"do": "begin"})
        self.hear("ready")

    def hear(self, event: str) -> Message:
        """Read until the driver tells of `event`."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            received = self.ours.receive(1.0)
            if received is not None and received[0]["event"] == event:
                return received[0]
        raise AssertionError(f"the driver did not say {event!r}")

    def pass_by(self, turns: int) -> None:
        """Wait until the driver has come round so many times, without reading anything."""
        end = time.monotonic() + SECONDS
        while turns and self._thread.is_alive() and time.monotonic() < end:
            before = self.books.lane.heartbeat
            time.sleep(0.001)
            turns -= before != self.books.lane.heartbeat
        assert self._thread.is_alive(), "the driver ended"
        assert not turns, "the driver stood still"

    def close(self) -> None:
        self.books = None
        self.ours.close()
        self._thread.join()
        self._theirs.close()


@pytest.fixture
def driven(instance: Callable[[], str]) -> Iterator[Driven]:
    flows = WireConfig(flows=FlowsConfig(count=4))
    config = Config(
        name=instance(),
        memory=MemoryConfig(hugepages="off"),
        ports=(PortConfig("wan", "sim:82599", wire=flows),),
        workers=(WorkerConfig(),),
    )
    with Instance(config, lambda address: None) as segments:
        running = Driven(segments)
        yield running
        running.close()


def test_a_supervisor_that_does_not_read_holds_nothing_up(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped by Ctrl-Z, say: statistics are left out, its orders still are answered."""
    monkeypatch.setattr(process, "STATISTICS_EVERY", 0.0)
    monkeypatch.setattr(process, "TURN", 0.001)
    monkeypatch.setattr(process, "IDLE_TURN", 0.001)
    driven.pass_by(400)
    driven.ours.send({"do": "stop"})
    assert driven.hear("stopped")["report"]["ports"][0]["name"] == "wan"
