"""The server of the status socket: who can connect, and which socket files it replaces."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.telemetry.status_client import ask
from ringline.pipeline.telemetry.status_socket import StatusServer, folders
from ringline.shm.errors import EnvironmentLacks

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
    with pytest.raises(EnvironmentLacks) as caught:
        function()
    return str(caught.value)


def leave_socket(path: Path) -> None:
    """Make a socket that nobody serves, as a killed instance leaves it."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path.name)
        path.chmod(0o600)
    finally:
        os.chdir(here)


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
    told = refused(lambda: StatusServer("edge", idle.take, folder))
    assert f"{folder} belongs to user nobody; the status socket is not safe there" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="root is missing: only root can give a link away")
def test_a_link_of_another_user_is_not_followed(idle: Idle, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    link = tmp_path / "ringline"
    link.symlink_to(home)
    StatusServer("edge", idle.take, link).close()  # our own link is safe
    os.chown(link, 65534, -1, follow_symlinks=False)
    assert "is a link of user nobody" in refused(lambda: StatusServer("edge", idle.take, link))
    assert list(home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root is missing: only root can give a socket away")
def test_a_planted_socket_is_refused(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    with served(StatusServer("edge", idle.take, folder)):
        os.chown(folder / "edge.sock", 65534, -1)
        told = "belongs to user nobody, so it is no status socket of ringline: remove it"
        assert told in refused(lambda: ask("edge", [folder]))
        assert told in refused(lambda: StatusServer("edge", idle.take, folder))


def test_a_file_that_is_no_socket_stays(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    file = folder / "edge.sock"
    file.write_text("precious")
    assert "is not a socket" in refused(lambda: StatusServer("edge", idle.take, folder))
    assert "is not a socket" in refused(lambda: ask("edge", [folder]))
    assert file.read_text() == "precious"


def test_a_closing_server_leaves_its_successor_s_socket(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    first = StatusServer("edge", idle.take, folder)
    first.path.unlink()
    with served(StatusServer("edge", idle.take, folder)):
        first.close()
        assert ask("edge", [folder]).state == "running"


def test_stale_socket_is_replaced(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    leave_socket(folder / "edge.sock")
    with served(StatusServer("edge", idle.take, folder)):
        assert ask("edge", [folder]).state == "running"


def test_live_socket_is_not_replaced(idle: Idle, folder: Path) -> None:
    folder.mkdir(parents=True)
    with served(StatusServer("edge", idle.take, folder)):
        told = refused(lambda: StatusServer("edge", idle.take, folder))
        assert "instance edge runs already" in told
        assert ask("edge", [folder]).state == "running"


def test_sockets_lie_where_the_user_may_write() -> None:
    user = {"XDG_RUNTIME_DIR": "/run/user/7"}
    if os.geteuid() == 0:
        assert folders(user)[0] == Path("/run/ringline"), "root's service and root's shell differ"
    else:
        assert folders(user)[0] == Path("/run/user/7/ringline")
        assert folders({})[0] == Path(f"/tmp/ringline-{os.geteuid()}")
    service = {"RUNTIME_DIRECTORY": "/run/ringline-edge:/run/b"}
    assert folders(service)[0] == Path("/run/ringline-edge")
