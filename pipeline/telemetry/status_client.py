"""Ask a running instance for a Snapshot over its status socket.

Guarantees (tests in tests/pipeline/telemetry/test_status_client.py):
 - `ask` gives up on an instance that is silent or sends too slowly
   (test_a_silent_instance_is_reported, test_a_slow_answer_is_given_up)
 - an answer that is no Snapshot of this version is refused
   (test_an_answer_that_is_no_snapshot_is_refused)
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import time
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import dataclass_json
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_socket import checked_address, folders
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.shm.segments import segments_of
from ringline.shm.version import version

ANSWER_BYTES = 64 << 20  # cap on the length of an answer
TIMEOUT = 5.0  # seconds for the whole answer


def running(where: list[Path] | None = None) -> dict[str, Path]:
    """Name and socket of each instance whose status socket this user can see.

    A socket that a killed instance left is included. `where` replaces `folders()`.
    """
    found: dict[str, Path] = {}
    for folder in folders() if where is None else where:
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("*.sock")):
                found.setdefault(path.stem, path)
    return found


def ask(name: str | None = None, where: list[Path] | None = None) -> Snapshot:
    """A Snapshot of the instance `name`; None means the only instance that runs.

    Raises EnvironmentLacks when no such instance runs or it does not answer,
    UsageError when several run and `name` is None.
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
    return _decode(name, _receive(name, known[name]))


def _answers(path: Path) -> bool:
    """Whether a process listens on the socket; a killed instance leaves one behind."""
    with contextlib.suppress(OSError, EnvironmentLacks), socket.socket(socket.AF_UNIX) as end:
        end.settimeout(TIMEOUT)
        with checked_address(path) as address:
            end.connect(address)
            return True
    return False


def _refuse_foreign(name: str) -> None:
    """Raise EnvironmentLacks when another user runs the instance `name`."""
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


def _receive(name: str, path: Path) -> bytes:
    until = time.monotonic() + TIMEOUT
    answer = bytearray()
    try:
        with checked_address(path) as address, socket.socket(socket.AF_UNIX) as end:
            end.settimeout(TIMEOUT)
            end.connect(address)
            while data := end.recv(1 << 16):
                answer += data
                left = until - time.monotonic()
                if len(answer) > ANSWER_BYTES or left <= 0:
                    raise TimeoutError
                end.settimeout(left)
    except TimeoutError:
        raise EnvironmentLacks(
            f"instance {name} does not answer on {path} within {TIMEOUT:g} s"
        ) from None
    except ConnectionError:
        raise EnvironmentLacks(f"instance {name} does not run; it left {path}") from None
    except OSError as error:
        raise EnvironmentLacks(f"{path} cannot be asked: {error.strerror or error}") from None
    return bytes(answer)


def _decode(name: str, answer: bytes) -> Snapshot:
    try:
        message: Any = json.loads(answer)
    except (ValueError, RecursionError):
        raise EnvironmentLacks(
            f"instance {name} ended before its answer was complete, or is not ringline"
        ) from None
    theirs = message.get("version") if isinstance(message, dict) else None
    if theirs != version():
        raise EnvironmentLacks(
            f"instance {name} runs ringline {theirs}, this is {version()}; "
            f"use the `ringline` command of version {theirs}"
        )
    return dataclass_json.from_json(Snapshot, message)
