"""The status socket: who may ask, what is answered, and what it leaves behind."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.telemetry import status_socket
from ringline.pipeline.telemetry.server import Server
from ringline.pipeline.telemetry.status_socket import StatusServer, ask, folders, running
from ringline.shm.errors import EnvironmentLacks, UsageError

from ..idle_instance import Idle, idle_instance, served


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance()) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Longer than what fits into the address of a UNIX socket.
    return tmp_path / ("long" * 40) / "ringline"


def refused(function: Callable[[], object]) -> str:
    with pytest.raises((EnvironmentLacks, UsageError)) as caught:
        function()
    return str(caught.value)


def test_who_asks_gets_the_whole_snapshot(idle: Idle, folder: Path) -> None:
    folder.parent.mkdir()
    idle.count()
    with served(StatusServer("edge", idle.take, folder)):
        for _ in range(3):
            got = ask("edge", [folder])
            assert got.ports == idle.take().ports
            assert got.workers[0].counters == idle.take().workers[0].counters
        assert ask(None, [folder]).name == got.name, "the only one needs no name"


def test_socket_and_folder_are_the_owners(idle: Idle, folder: Path) -> None:
    folder.parent.mkdir()
    before = os.umask(0)
    try:
        server = StatusServer("edge", idle.take, folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    server.close()
    assert not server.path.exists(), "the socket was left"


def test_foreign_folder_is_refused(idle: Idle, tmp_path: Path) -> None:
    folder = tmp_path / "ringline"
    folder.mkdir()
    folder.chmod(0o777)
    told = refused(lambda: StatusServer("edge", idle.take, folder))
    assert "can be written by other users" in told
    assert f"chmod 700 {folder}" in told
    (folder / "edge.sock").touch()
    assert "can be written by other users" in refused(lambda: ask("edge", [folder]))


@pytest.mark.skipif(os.geteuid() != 0, reason="root is missing: only root can give a folder away")
def test_folder_of_another_user_is_refused(
    idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ringline"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "belongs to another user" in refused(lambda: StatusServer("edge", idle.take, folder))


def test_stale_socket_is_replaced(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind("edge.sock")
    finally:
        os.chdir(here)
    assert "does not run; it left" in refused(lambda: ask("edge", [folder]))
    with served(StatusServer("edge", idle.take, folder)):
        assert ask("edge", [folder]).state == "running"


def test_live_socket_is_not_replaced(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    with served(StatusServer("edge", idle.take, folder)):
        told = refused(lambda: StatusServer("edge", idle.take, folder))
        assert "instance edge runs already" in told
        assert ask("edge", [folder]).state == "running"


def test_who_asks_for_what_is_not_there_is_told_what_is(idle: Idle, folder: Path) -> None:
    assert refused(lambda: ask(None, [folder])).startswith("no instance runs here")
    folder.mkdir(parents=True)
    with (
        served(StatusServer("edge", idle.take, folder)),
        served(StatusServer("core", idle.take, folder)),
    ):
        assert "no instance dege runs here (running: core, edge)" in refused(
            lambda: ask("dege", [folder])
        )
        assert "core, edge; name one" in refused(lambda: ask(None, [folder]))
        assert sorted(running([folder])) == ["core", "edge"]


def test_silent_instance_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_socket, "SECONDS", 0.2)
    folder.mkdir(parents=True)
    with status_socket._listen(folder / "edge.sock"):
        assert "does not answer" in refused(lambda: ask("edge", [folder]))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "ended while it was asked"),
        (b'{"name": "ed', "ended while it was asked"),
        (b"[" * 100_000, "ended while it was asked"),
        (b"[]", "runs ringline None"),
        (json.dumps({"version": "99.0"}).encode(), "runs ringline 99.0, this is"),
    ],
)
def test_what_is_no_snapshot_is_told(folder: Path, answer: bytes, told: str) -> None:
    folder.mkdir(parents=True)
    listener = status_socket._listen(folder / "edge.sock")
    with served(Server(listener, lambda request, complete: answer)):
        if answer:
            assert told in refused(lambda: ask("edge", [folder]))


def test_sockets_lie_where_the_user_may_write() -> None:
    user = {"XDG_RUNTIME_DIR": "/run/user/7"}
    if os.geteuid() == 0:
        assert folders(user)[0] == Path("/run/ringline"), "root's service and root's shell differ"
    else:
        assert folders(user)[0] == Path("/run/user/7/ringline")
        assert folders({})[0] == Path(f"/tmp/ringline-{os.geteuid()}")
    service = {"RUNTIME_DIRECTORY": "/run/ringline-edge:/run/b"}
    assert folders(service)[0] == Path("/run/ringline-edge")


def test_status_prints_words_or_json(
    idle: Idle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    monkeypatch.setattr(status_socket, "folders", lambda: [folder])
    monkeypatch.setattr(status_socket, "RATES_OVER", 0.01)
    idle.count()
    with served(StatusServer(idle.sources.name, idle.take)):
        words = status_socket.tell(None, as_json=False)
        assert "wan" in words
        assert "running" in words
        whole = json.loads(status_socket.tell(None, as_json=True))
        assert whole["ports"]["wan"]["received"]["packets"] == idle.take().ports[0].total(
            "rx_packets"
        )
