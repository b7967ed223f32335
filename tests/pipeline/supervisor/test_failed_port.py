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


def test_a_card_without_a_link_is_said_and_does_not_end_the_run(trial: Trial) -> None:
    sentence = (
        "port wan: the card has no link: no frame comes or is sent until its cable is in and the "
        "other end is up; the run waits for that"
    )
    outcome = trial.run("well", driver="unlinked", device="pci:0000:99:00.0")
    assert outcome.error is None
    assert trial.announced.count(sentence) == 1
    trial.announced.clear()
    trial.run("well", driver="unlinked")
    assert sentence not in trial.announced, "a simulated card has the link that it wants"
