"""The status socket: whoever may connect gets a Snapshot as JSON, and the end.

It lies in a folder that only its owner may write, as `<instance>.sock`, 0600.
The supervisor listens; `ringline status` and `ringline top` ask.

Guarantees (tests in tests/pipeline/telemetry/test_status_socket.py):
 - nobody but the owner and root can connect (test_socket_and_folder_are_the_owners)
 - a folder that another user could have put there is refused, by both sides
   (test_foreign_folder_is_refused)
 - a socket that a dead instance left is replaced, one that answers is not
   (test_stale_socket_is_replaced, test_live_socket_is_not_replaced)
 - asking ends, whatever the other side does (test_silent_instance_is_told)
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import dataclass_json
from ringline.pipeline.telemetry import report
from ringline.pipeline.telemetry.server import Server
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.version import version
from ringline.pipeline.terminal import table
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.shm.segments import segments_of

ANSWER_BYTES = 64 << 20
SECONDS = 5.0
RATES_OVER = 0.5


def folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where sockets may lie, the first being where a new one goes.

    A service manager says where (RUNTIME_DIRECTORY); root uses /run; others what
    their session gives them, or a folder of their own in /tmp.
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
    """Answers on the status socket of the instance `name`; removes it when closed.

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
        """Stop answering and remove the socket."""
        super().close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.parent.mkdir(mode=0o700)
        with _reachable(path) as address:
            _remove_stale(path, address)
            os.fchmod(listener.fileno(), 0o600)  # before bind: Linux makes the file with this
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
def _reachable(path: Path) -> Iterator[str]:
    """`path` as an address that fits into 108 bytes, in a folder that has been checked."""
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


def _remove_stale(path: Path, address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
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


def tell(name: str | None, *, as_json: bool) -> str:
    """What `ringline status` prints: the board with the rates of RATES_OVER seconds, or
    everything as JSON."""
    before = ask(name)
    if as_json:
        return json.dumps(report.lay_out(before), indent=2)
    time.sleep(RATES_OVER)
    return table.text(table.board(before, ask(before.name)))


def running(where: list[Path] | None = None) -> dict[str, Path]:
    """The instances that have a status socket which this user can see, by name."""
    found: dict[str, Path] = {}
    for folder in folders() if where is None else where:
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("*.sock")):
                found.setdefault(path.stem, path)
    return found


def ask(name: str | None = None, where: list[Path] | None = None) -> Snapshot:
    """What the instance `name` knows of itself; None: the only one that runs.

    Raises EnvironmentLacks when there is none, or it does not answer, UsageError
    when it must be named or cannot be a name.
    """
    known = running(where)
    if name is None:
        if len(known) > 1:
            known = {one: path for one, path in known.items() if _answers(path)}
        if len(known) > 1:
            raise UsageError(f"several instances run here: {', '.join(sorted(known))}; name one")
        name = next(iter(known), "")
    if name not in known:
        _refuse_foreign(name)
        others = f" (running: {', '.join(sorted(known))})" if known else ""
        what = f"no instance {name} runs here" if name else "no instance runs here"
        raise EnvironmentLacks(f"{what}{others}; `ringline run` starts one")
    return _understood(name, _received(name, known[name]))


def _answers(path: Path) -> bool:
    """Whether somebody listens; what a killed instance left is there for nobody."""
    with contextlib.suppress(OSError, EnvironmentLacks), socket.socket(socket.AF_UNIX) as end:
        end.settimeout(SECONDS)
        with _reachable(path) as address:
            end.connect(address)
            return True
    return False


def _refuse_foreign(name: str) -> None:
    """Say whose an instance is that this user has no socket of."""
    for path in segments_of(name) if name else ():
        with contextlib.suppress(FileNotFoundError):
            owner = os.stat(path, follow_symlinks=False).st_uid
            if owner != os.geteuid():
                raise EnvironmentLacks(
                    f"instance {name} belongs to {_user(owner)}: only that user can ask it"
                )


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _received(name: str, path: Path) -> bytes:
    until = time.monotonic() + SECONDS
    answer = bytearray()
    try:
        with _reachable(path) as address, socket.socket(socket.AF_UNIX) as end:
            end.settimeout(SECONDS)
            end.connect(address)
            while data := end.recv(1 << 16):
                answer += data
                left = until - time.monotonic()
                if len(answer) > ANSWER_BYTES or left <= 0:
                    raise TimeoutError
                end.settimeout(left)
    except TimeoutError:
        raise EnvironmentLacks(
            f"instance {name} does not answer on {path} within {SECONDS:g} s"
        ) from None
    except ConnectionError:
        raise EnvironmentLacks(f"instance {name} does not run; it left {path}") from None
    except OSError as error:
        raise EnvironmentLacks(f"{path} cannot be asked: {error.strerror or error}") from None
    return bytes(answer)


def _understood(name: str, answer: bytes) -> Snapshot:
    try:
        message: Any = json.loads(answer)
    except (ValueError, RecursionError):
        raise EnvironmentLacks(
            f"instance {name} ended while it was asked, or is not ringline"
        ) from None
    theirs = message.get("version") if isinstance(message, dict) else None
    if theirs != version():
        raise EnvironmentLacks(
            f"instance {name} runs ringline {theirs}, this is {version()}; use that one's command"
        )
    return dataclass_json.from_json(Snapshot, message)
