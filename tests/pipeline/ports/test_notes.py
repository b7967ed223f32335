"""Notes of what a run has changed at an interface."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.ports.interfaces import ethtool, interface, notes
from ringline.pipeline.ports.interfaces.ethtool import Channels
from ringline.shm.owners import remove_stale

BEFORE, NOW = Channels(4, 4, 0, 1, 1, 0), Channels(4, 4, 0, 3, 3, 0)
LO = socket.if_nametoindex("lo")


class Driver:
    """A kernel driver that says and sets the channels of an interface."""

    def __init__(self) -> None:
        self.channels: Channels | None = NOW
        self.refuses = False


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()

    def restore(number: int, channels: Channels) -> bool:
        assert number == LO
        if not made.refuses:
            made.channels = Channels(4, 4, 0, channels.rx, channels.tx, channels.combined)
        return not made.refuses

    monkeypatch.setattr(ethtool, "channels", lambda name: made.channels)
    monkeypatch.setattr(interface, "restore_channels", restore)
    return made


@pytest.fixture
def left(instance: Callable[[], str]) -> Iterator[str]:
    """The name of an instance that has died and left a note."""
    name = instance()
    notes.note(name, LO, NOW, BEFORE).close()  # without removing its file, as at a death
    yield name
    remove_stale(name, lambda address: None)


def test_the_channels_of_a_dead_run_are_restored_once(driver: Driver, left: str) -> None:
    assert notes.restore_left(left) == ["the channels of lo were restored"]
    assert driver.channels == BEFORE
    assert notes.restore_left(left) == []


def test_what_cannot_be_restored_is_said(driver: Driver, left: str) -> None:
    driver.refuses = True
    (said,) = notes.restore_left(left)
    assert said.endswith("could not be restored; run: ethtool -L lo rx 1 tx 1")


def test_channels_that_somebody_has_set_since_stay(driver: Driver, left: str) -> None:
    for since in (Channels(4, 4, 0, 2, 2, 0), None):
        driver.channels = since
        assert notes.restore_left(left) == []
        assert driver.channels == since


def test_another_interface_is_left_alone(
    driver: Driver, left: str, instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(notes, "_namespace", lambda: 7)
        assert notes.restore_left(left) == []
    name = instance()
    notes.note(name, 1 << 30, NOW, BEFORE).close()
    assert notes.restore_left(name) == []
    remove_stale(name, lambda address: None)
    assert driver.channels == NOW


def test_the_note_of_a_live_run_is_left_alone(driver: Driver, instance: Callable[[], str]) -> None:
    name = instance()
    with notes.note(name, LO, NOW, BEFORE):
        assert notes.restore_left(name) == []
    assert driver.channels == NOW
    assert notes.restore_left(name) == []
