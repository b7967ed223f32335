"""A port that fails for good, with a fake driver: others go on, and the last one ends the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.shm.errors import EnvironmentLacks

from .test_supervisor import Trial


@pytest.fixture
def trial(instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr("ringline.pipeline.supervisor.publisher.DISPLAY_EVERY", 0.02)
    return Trial(instance())


def test_the_other_ports_go_on(trial: Trial) -> None:
    sentence = "port wan has failed: it is gone; the other ports go on"
    trial.until(lambda snapshot: sentence in trial.announced)
    outcome = trial.run("well", driver="fails", seconds=None, more=[PortConfig("lan", "sim:82599")])
    assert outcome.error is None
    assert trial.announced.count(sentence) == 1


def test_the_last_port_ends_the_run(trial: Trial) -> None:
    outcome = trial.run("well", driver="fails", seconds=None)
    assert isinstance(outcome.error, EnvironmentLacks)
    assert str(outcome.error) == "port wan has failed: it is gone"
