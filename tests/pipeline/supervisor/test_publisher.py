"""What shows a run may fail: it is told once, it is counted, and the run goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.configuration.config import Config, MetricsConfig, PortConfig
from ringline.pipeline.supervisor.event_loop import Loop
from ringline.pipeline.supervisor.publisher import Publisher, ShowSnapshot
from ringline.pipeline.supervisor.sd_notify import Notifier
from ringline.pipeline.telemetry import metrics, report, status_client
from ringline.pipeline.terminal import table

from ..idle_instance import Idle, idle_instance


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance()) as made:
        yield made


class Broken:
    """A service that fails at each turn, and takes its input before."""

    deadline = None

    def __init__(self) -> None:
        self._ends = socket.socketpair()
        self.turns = 0

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def knock(self) -> None:
        self._ends[1].send(b"x")

    def turn(self) -> None:
        self._ends[0].recv(100)
        self.turns += 1
        raise ZeroDivisionError("division by zero")

    def close(self) -> None:
        for end in self._ends:
            end.close()


def fail(*_: object) -> None:
    raise ZeroDivisionError("division by zero")


@contextlib.contextmanager
def published(
    idle: Idle, display: ShowSnapshot | None = None, *services: Broken
) -> Iterator[tuple[Publisher, Loop, list[str]]]:
    """A publisher of an idle instance, its loop, and what it announced."""
    told: list[str] = []
    config = Config(
        name=idle.sources.name,
        ports=(PortConfig("wan", "sim:82599", 2),),
        metrics=MetricsConfig(host="127.0.0.1", port=0),
    )
    with Loop() as loop:
        publisher = Publisher(
            loop, idle.sources, Notifier(), display, services, lambda: None, told.append
        )
        publisher.open(config)
        try:
            yield publisher, loop, told
        finally:
            publisher.close()


def test_a_display_that_fails_ends_nothing(idle: Idle) -> None:
    with published(idle, fail) as (publisher, _, told):
        for second in range(3):
            publisher.turn(1e12 + second)
    assert told[0].startswith(
        "the display failed and the run goes on: ZeroDivisionError: division by zero "
        "(test_publisher.py:"
    )
    assert told[1:] == ["the display failed 3 times"]


@pytest.mark.parametrize("what", ["the metrics", "the status socket"])
def test_metrics_that_fail_end_nothing(
    idle: Idle, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with published(idle) as (publisher, loop, told):
        url = idle.sources.metrics_url
        assert url is not None

        def request() -> None:
            with contextlib.suppress(Exception):
                if what == "the metrics":
                    urllib.request.urlopen(url, timeout=30).read()
                else:
                    status_client.ask(idle.sources.name)

        def serve(times: int) -> None:
            for _ in range(times):
                client = threading.Thread(target=request)
                client.start()
                while client.is_alive():
                    loop.turn([0.0])
                client.join()

        serve(1)
        assert told == []
        with monkeypatch.context() as patch:
            patch.setattr("ringline.pipeline.telemetry.observe.take", fail)
            serve(2)
        assert publisher.failures == {what: 2}
        serve(1)
    assert [line.partition(" and the run")[0] for line in told] == [
        f"{what} failed",
        f"{what} failed 2 times",
    ]


def test_a_service_that_fails_ends_nothing(idle: Idle) -> None:
    broken = Broken()
    with published(idle, None, broken) as (publisher, loop, told):
        for _ in range(3):
            broken.knock()
            loop.turn([])
    assert broken.turns == publisher.failures["an output of the run"] == 3
    assert len(told) == 2
    broken.close()


def test_wild_counters_can_be_shown(idle: Idle) -> None:
    """Whatever a worker writes into its counters, all that shows a run can show it."""
    before = idle.take()
    values = (0, 10**9, (1 << 64) - 1, 1 << 63, 1)
    for busy in values:
        for idle_ticks in values:
            for packets in values:
                for slot in idle.instance.slots:
                    own = slot.counters
                    own.busy_ticks, own.idle_ticks, own.plugin_ticks = busy, idle_ticks, busy
                    own.packets = own.bytes = own.batches = own.heartbeat = packets
                    own.plugin_errors = own.verdict_errors = packets
                now = idle.take()
                assert "nan" not in table.text(table.board(before, now))
                assert table.line(before, now)
                assert table.summary(now)
                before = now
    assert list(metrics.families(before))
    json.dumps(report.of_a_run(before, None, {}), allow_nan=False)
