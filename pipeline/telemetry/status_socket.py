"""The status socket of a running instance: each connection gets one Snapshot as JSON.

The socket is `<instance>.sock`, mode 0600, in a folder that only its owner may write.
The supervisor serves it; `status_client` connects.

Guarantees (tests in tests/pipeline/telemetry/test_status_socket.py):
 - only the owner and root can connect (test_socket_and_folder_are_the_owners)
 - server and client refuse a folder or a socket that another user may have made
   (test_foreign_folder_is_refused, test_folder_of_another_user_is_refused,
   test_a_link_of_another_user_is_not_followed, test_a_planted_socket_is_refused)
 - a socket that a dead instance left is replaced, a socket that answers is not, and nothing
   else is removed (test_stale_socket_is_replaced, test_live_socket_is_not_replaced,
   test_a_file_that_is_no_socket_stays)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ringline.pipeline.configuration import dataclass_json, deadlines
from ringline.pipeline.telemetry.server import Server
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import REMEDIES, EnvironmentLacks, reason_of
from ringline.shm.file_owner import user_name, why_foreign
from ringline.shm.owners import is_file_at

PROBE_TIMEOUT = deadlines.STATUS_PROBE
LOCK_TIMEOUT = deadlines.STATUS_LOCK


def folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Folders that may hold status sockets; a new socket goes into the first.

    In this order: RUNTIME_DIRECTORY, which a service manager sets; for root
    /run/ringline; XDG_RUNTIME_DIR/ringline of the login session; for other users
    /tmp/ringline-<uid> and /run/ringline.
    """
    found = []
    if "RUNTIME_DIRECTORY" in environment:
        found.append(Path(environment["RUNTIME_DIRECTORY"].split(":")[0]))
    if os.geteuid() == 0:
        found.append(Path("/run/ringline"))
    if environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(environment["XDG_RUNTIME_DIR"], "ringline"))
    if os.geteuid() != 0:
        found.append(Path(f"/tmp/ringline-{os.geteuid()}"))
        found.append(Path("/run/ringline"))
    return found


class StatusServer(Server):
    """Serves the status socket of the instance `name`; `close` removes the socket.

    Raises EnvironmentLacks when the socket cannot be made or another instance
    answers on it.
    """

    def __init__(self, name: str, take: Callable[[], Snapshot], folder: Path | None = None) -> None:
        self.path = (folder or folders()[0]) / f"{name}.sock"
        self._take = take
        super().__init__(_listen(self.path), self._respond_to)
        self._status = os.lstat(self.path)

    def _respond_to(self, request: bytes, complete: bool) -> bytes:
        return json.dumps(dataclass_json.to_json(self._take())).encode()

    def close(self) -> None:
        """Close every connection and remove the socket."""
        super().close()
        with contextlib.suppress(OSError):
            if is_file_at(str(self.path), self._status):
                self.path.unlink()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.parent.mkdir(mode=0o700)
        with checked_address(path) as address, locked(address, LOCK_TIMEOUT):
            _remove_stale(path, address)
            # Before bind: Linux gives the file the mode of the socket.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(address)
            listener.listen(16)
    except OSError as error:
        listener.close()
        other = "" if error.errno in REMEDIES else "; RUNTIME_DIRECTORY names another folder for it"
        raise EnvironmentLacks(
            f"the status socket {path} cannot be made: {reason_of(error)}{other}"
        ) from None
    except EnvironmentLacks:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def checked_address(path: Path) -> Iterator[str]:
    """The address of the socket at `path`, after a check of its folder and of the socket.

    The address goes through /proc/self/fd: it fits into the 108 bytes of a UNIX
    socket address, and it stays in the folder that was checked. Raises
    EnvironmentLacks when other users could have put the socket there.
    """
    link = os.lstat(path.parent)  # a service manager may make the folder a link
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
        raise EnvironmentLacks(
            f"{path.parent} is a link of {user_name(link.st_uid)}; the status socket is not safe "
            "there: remove the link"
        )
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        if why := why_foreign(os.fstat(folder)):
            remedy = f": chmod 700 {path.parent}" if "written" in why else ""
            raise EnvironmentLacks(
                f"{path.parent} {why}; the status socket is not safe there{remedy}"
            )
        _check_socket(path, folder)
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def remove_dead(name: str) -> list[Path]:
    """Remove the status sockets that a dead instance `name` left; returns their paths."""
    removed = []
    for path in (folder / f"{name}.sock" for folder in folders()):
        with contextlib.suppress(OSError, EnvironmentLacks):
            if path.is_socket():
                with checked_address(path) as address, locked(address, LOCK_TIMEOUT) as taken:
                    if taken and is_dead(address):
                        path.unlink()
                        removed.append(path)
    return removed


def _check_socket(path: Path, folder: int) -> None:
    """Raise EnvironmentLacks when there is something else than a socket of this user or root."""
    try:
        facts = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    why = "is not a socket" if not stat.S_ISSOCK(facts.st_mode) else why_foreign(facts)
    if why:
        raise EnvironmentLacks(f"{path} {why}, so it is no status socket of ringline: remove it")


@contextlib.contextmanager
def locked(address: str, seconds: float = 0.0) -> Iterator[bool]:
    """Lock the folder of a checked address against other processes that replace or remove its
    sockets; whether that succeeded within `seconds`. Who only asks an instance needs no lock."""
    folder = os.open(os.path.dirname(address), os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    until = time.monotonic() + seconds
    try:
        while not (taken := _lock(folder)) and time.monotonic() < until:
            time.sleep(0.01)
        yield taken
    finally:
        os.close(folder)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_dead(address: str) -> bool:
    """Whether nobody serves the socket at a checked address, or there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        try:
            probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except TimeoutError:  # it is stopped, and its queue of connections is full
            return False
    return False


def _remove_stale(path: Path, address: str) -> None:
    """Remove a socket that nobody serves. Raises EnvironmentLacks when one answers."""
    if not is_dead(address):
        raise EnvironmentLacks(
            f"instance {path.stem} runs already: it answers on {path}; "
            f"stop it, or give this one another name"
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
