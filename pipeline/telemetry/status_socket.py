"""The status socket of a running instance: each connection gets one Snapshot as JSON.

The socket is `<instance>.sock`, mode 0600, in a folder that only its owner may write.
The supervisor serves it; `status_client` connects.

Guarantees (tests in tests/pipeline/telemetry/test_status_socket.py):
 - only the owner and root can connect (test_socket_and_folder_are_the_owners)
 - server and client refuse a folder that another user may have made
   (test_foreign_folder_is_refused, test_folder_of_another_user_is_refused)
 - a socket that a dead instance left is replaced, a socket that answers is not
   (test_stale_socket_is_replaced, test_live_socket_is_not_replaced)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ringline.pipeline.configuration import dataclass_json, deadlines
from ringline.pipeline.telemetry.server import Server
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import EnvironmentLacks

PROBE_TIMEOUT = deadlines.STATUS_PROBE


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

    def _respond_to(self, request: bytes, complete: bool) -> bytes:
        return json.dumps(dataclass_json.to_json(self._take())).encode()

    def close(self) -> None:
        """Close every connection and remove the socket."""
        super().close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.parent.mkdir(mode=0o700)
        with checked_address(path) as address:
            _remove_stale(path, address)
            # Before bind: Linux gives the file the mode of the socket.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(address)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise EnvironmentLacks(
            f"the status socket {path} cannot be made: {error.strerror or error}; "
            "RUNTIME_DIRECTORY names another folder for it"
        ) from None
    except EnvironmentLacks:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def checked_address(path: Path) -> Iterator[str]:
    """The address of the socket at `path`, after a check of its folder.

    The address goes through /proc/self/fd: it fits into the 108 bytes of a UNIX
    socket address, and it stays in the folder that was checked. Raises
    EnvironmentLacks when other users could have put the socket there.
    """
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(folder)
        if facts.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
            raise EnvironmentLacks(
                f"{path.parent} belongs to another user; the status socket is not safe there"
            )
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise EnvironmentLacks(
                f"{path.parent} can be written by other users; the status socket is not safe "
                f"there: chmod 700 {path.parent}"
            )
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def remove_dead(name: str) -> list[Path]:
    """Remove the status sockets that a dead instance `name` left; returns their paths."""
    removed = []
    for path in (folder / f"{name}.sock" for folder in folders()):
        with contextlib.suppress(OSError, EnvironmentLacks):
            if path.is_socket():
                with checked_address(path) as address:
                    _remove_stale(path, address)
                removed.append(path)
    return removed


def _remove_stale(path: Path, address: str) -> None:
    """Remove a socket that nobody serves. Raises EnvironmentLacks when one answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        try:
            probe.connect(address)
        except FileNotFoundError:
            return
        except OSError:
            path.unlink()
            return
    raise EnvironmentLacks(
        f"instance {path.stem} runs already: it answers on {path}; "
        f"stop it, or give this one another name"
    )
