"""`/healthz`: 200 while all queues are served, else 503 and the reason."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.configuration.config import MetricsConfig
from ringline.pipeline.supervisor.run_states import Stage
from ringline.pipeline.telemetry import metrics_http
from ringline.pipeline.telemetry.flaws import health
from ringline.pipeline.telemetry.metrics_http import MetricsServer

from ..idle_instance import Idle, idle_instance, served


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance()) as made:
        yield made


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_is_ok_while_all_queues_are_served(idle: Idle) -> None:
    listener = metrics_http.listen(MetricsConfig("127.0.0.1", 0))
    assert listener is not None
    server = MetricsServer(listener, idle.take)
    with served(server):
        url = server.url.replace("/metrics", "/healthz")
        assert ask(url) == (200, "ok\n")
        idle.sources.workers[1].state, idle.sources.workers[1].up = "waiting to restart", False
        assert ask(url) == (503, "not served: queue 1 (waiting to restart)\n")
        idle.sources.workers[1].state = "given up"
        assert ask(url) == (503, "given up: queue 1\n")
        idle.sources.state = "opening"
        assert ask(url + "/?x=1") == (503, "starting\n")
        idle.sources.state = "draining"
        assert ask(url) == (503, "stopping (draining)\n")
        with urllib.request.urlopen(server.url.replace("metrics", ""), timeout=10) as got:
            assert "/healthz" in got.read().decode()


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_of_a_run_has_an_answer(idle: Idle, stage: Stage) -> None:
    idle.sources.state = stage.value
    said = health(idle.take())
    if stage is Stage.RUNNING:
        assert said is None
    elif stage in (Stage.OPENING, Stage.BEGINNING):
        assert said == "starting"
    else:
        assert said == f"stopping ({stage.value})"


def test_an_answer_that_fails_ends_nothing(idle: Idle) -> None:
    listener = metrics_http.listen(MetricsConfig("127.0.0.1", 0))
    assert listener is not None
    server = MetricsServer(listener, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    failures: list[Exception] = []
    server.on_failure = failures.append
    with served(server):
        status, said = ask(server.url.replace("/metrics", "/healthz"))
    assert status == 500
    assert "ZeroDivisionError" in said
    assert len(failures) == 1
