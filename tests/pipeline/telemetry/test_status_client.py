"""The client of the status socket: what it returns, and which answers it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.telemetry import status_client, status_socket
from ringline.pipeline.telemetry.server import Server
from ringline.pipeline.telemetry.status_client import ask, running
from ringline.pipeline.telemetry.status_socket import StatusServer, checked_address, locked
from ringline.shm._shm import lib
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.shm.segments import Segment, segments_of

from ..idle_instance import Idle, idle_instance, served
from .test_status_socket import leave_socket


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance()) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ringline"
    folder.mkdir()
    return folder


def refused(function: Callable[[], object]) -> str:
    """The message of the error that `function` must raise."""
    with pytest.raises((EnvironmentLacks, UsageError)) as caught:
        function()
    return str(caught.value)


def test_a_client_gets_the_whole_snapshot(idle: Idle, folder: Path) -> None:
    idle.count()
    with served(StatusServer("edge", idle.take, folder)):
        for _ in range(3):
            got = ask("edge", [folder])
            assert got.ports == idle.take().ports
            assert got.workers[0].counters == idle.take().workers[0].counters
        assert ask(None, [folder]).name == got.name, "the only instance needs no name"


def test_a_wrong_name_is_answered_with_the_names_that_run(idle: Idle, folder: Path) -> None:
    assert refused(lambda: ask(None, [folder])).startswith("no instance runs here")
    with (
        served(StatusServer("edge", idle.take, folder)),
        served(StatusServer("core", idle.take, folder)),
    ):
        assert "no instance dege runs here (running: core, edge)" in refused(
            lambda: ask("dege", [folder])
        )
        assert "core, edge; name one" in refused(lambda: ask(None, [folder]))
        assert sorted(running([folder])) == ["core", "edge"]


def test_only_the_living_are_listed(idle: Idle, folder: Path) -> None:
    leave_socket(folder / "old.sock")
    with served(StatusServer("edge", idle.take, folder)):
        assert "no instance nope runs here (running: edge)" in refused(
            lambda: ask("nope", [folder])
        )
        assert ask(None, [folder]).state == "running"
        leave_socket(folder / "old.sock")
        assert list(running([folder])) == ["edge"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("asked", [None, "dead"])
def test_what_the_dead_left_is_removed(
    folder: Path, instance: Callable[[], str], asked: str | None
) -> None:
    name = instance()
    leave_segment(name)
    leave_socket(folder / f"{name}.sock")
    what = "no instance runs here" if asked is None else f"no instance {name} runs here"
    assert what in refused(lambda: ask(asked and name, [folder]))
    assert list(folder.iterdir()) == []
    assert segments_of(name) == []


def test_memory_that_a_card_may_write_stays(folder: Path, instance: Callable[[], str]) -> None:
    name = instance()
    leave_segment(name, "0000:03:00.0")
    leave_socket(folder / f"{name}.sock")
    assert f"no instance {name} runs here; `ringline run`" in refused(lambda: ask(name, [folder]))
    assert running([folder]) == {}
    (path,) = segments_of(name)
    os.unlink(path)


def test_a_socket_that_is_made_at_this_moment_stays(folder: Path) -> None:
    """The other process has bound its socket and does not listen yet, under its lock."""
    leave_socket(folder / "edge.sock")
    with checked_address(folder / "edge.sock") as address, locked(address) as alone:
        assert alone
        assert running([folder]) == {}
        assert (folder / "edge.sock").exists()


def leave_segment(name: str, *pci: str) -> None:
    segment = Segment.create(name, "descriptors", 9000, kind=lib.RL_SEGMENT_DESCRIPTORS, pci=pci)
    segment.close()


def test_a_silent_instance_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "TIMEOUT", 0.2)
    with status_socket._listen(folder / "edge.sock"):
        assert "does not answer" in refused(lambda: ask("edge", [folder]))


def test_a_slow_answer_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "TIMEOUT", 0.2)

    given_up = threading.Event()

    def drip(listener: socket.socket) -> None:
        end, _ = listener.accept()
        with end, contextlib.suppress(OSError):  # the client has closed
            while not given_up.wait(0.02):
                end.sendall(b" ")

    with status_socket._listen(folder / "edge.sock") as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            assert "does not answer" in refused(lambda: ask("edge", [folder]))
        finally:
            given_up.set()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "ended before its answer was complete"),
        (b'{"name": "ed', "ended before its answer was complete"),
        (b"[" * 100_000, "ended before its answer was complete"),
        (b"[]", "runs ringline None"),
        (json.dumps({"version": "99.0"}).encode(), "runs ringline 99.0, this is"),
    ],
)
def test_an_answer_that_is_no_snapshot_is_refused(folder: Path, answer: bytes, told: str) -> None:
    listener = status_socket._listen(folder / "edge.sock")
    with served(Server(listener, lambda request, complete: answer)):
        assert told in refused(lambda: ask("edge", [folder]))
