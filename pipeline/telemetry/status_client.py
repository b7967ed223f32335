"""Ask a running instance for a Snapshot over its status socket.

Guarantees (tests in tests/pipeline/telemetry/test_status_client.py):
 - `ask` gives up on an instance that is silent or sends too slowly
   (test_a_silent_instance_is_reported, test_a_slow_answer_is_given_up)
 - an answer that is no Snapshot of this version is refused
   (test_an_answer_that_is_no_snapshot_is_refused)
 - only what lives is listed; what the dead left is removed, unless a card may still write to it
   (test_only_the_living_are_listed, test_what_the_dead_left_is_removed,
   test_memory_that_a_card_may_write_stays)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import dataclass_json, deadlines
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_socket import (
    checked_address,
    folders,
    is_dead,
    locked,
)
from ringline.shm.errors import EnvironmentLacks, RinglineError, UsageError, reason_of
from ringline.shm.file_owner import user_name
from ringline.shm.segments import remove_stale, segments_of
from ringline.shm.version import version

ANSWER_BYTES = 64 << 20  # cap on the length of an answer
TIMEOUT = deadlines.STATUS_ANSWER


def running(where: list[Path] | None = None) -> dict[str, Path]:
    """Name and socket of each instance that runs and that this user can ask.

    What dead instances left is removed. `where` replaces `folders()`.
    """
    return {name: path for name, path in _sockets(where).items() if not _bury_if_dead(path)}


def ask(name: str | None = None, where: list[Path] | None = None) -> Snapshot:
    """A Snapshot of the instance `name`; None means the only instance that runs.

    Raises EnvironmentLacks when no such instance runs or it does not answer,
    UsageError when several run and `name` is None.
    """
    there = _sockets(where)
    if name is None and len(there) > 1:
        there = running(where)
        if len(there) > 1:
            raise UsageError(f"several instances run here: {', '.join(sorted(there))}; name one")
    path = there.get(next(iter(there), "") if name is None else name)
    answer = None if path is None else _receive(path)
    if path is not None and answer is not None:
        return _decode(path.stem, answer)
    if path is not None:
        _bury_if_dead(path)
    _refuse_foreign(name or "")
    living = running(where)
    others = f" (running: {', '.join(sorted(living))})" if living else ""
    what = f"no instance {name} runs here" if name else "no instance runs here"
    raise EnvironmentLacks(f"{what}{others}; `ringline run` starts one")


def _sockets(where: list[Path] | None) -> dict[str, Path]:
    """What may be a status socket, by the name of the instance."""
    found: dict[str, Path] = {}
    for folder in folders() if where is None else where:
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("*.sock")):
                found.setdefault(path.stem, path)
    return found


def _bury_if_dead(path: Path) -> bool:
    """Whether the instance of this socket cannot be asked. If it is dead, remove its socket, and
    its memory if no card may still write there: only a new start can stop that card."""
    try:
        with checked_address(path) as address:
            if not is_dead(address):
                return False
            # A new instance of this name makes its socket under the same lock.
            with locked(address) as alone:
                if alone and is_dead(address):
                    os.unlink(address)
            remove_stale(path.stem, _keep)
    except (OSError, RinglineError):
        pass
    return True


def _keep(address: str) -> None:
    raise EnvironmentLacks(f"the card {address} may still write to this memory")


def _refuse_foreign(name: str) -> None:
    """Raise EnvironmentLacks when another user runs the instance `name`."""
    for path in segments_of(name) if name else ():
        with contextlib.suppress(FileNotFoundError):
            owner = os.stat(path, follow_symlinks=False).st_uid
            if owner != os.geteuid():
                raise EnvironmentLacks(
                    f"instance {name} belongs to {user_name(owner)}: only that user can ask it"
                )


def _receive(path: Path) -> bytes | None:
    """What the instance of this socket answers; None when it does not run."""
    name = path.stem
    until = time.monotonic() + TIMEOUT
    answer = bytearray()
    try:
        with checked_address(path) as address, socket.socket(socket.AF_UNIX) as end:
            end.settimeout(TIMEOUT)
            end.connect(address)
            _check_peer(path, end)
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
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except ConnectionError:
        pass  # it ended; the answer is not complete
    except OSError as error:
        raise EnvironmentLacks(f"{path} cannot be asked: {reason_of(error)}") from None
    return bytes(answer)


def _check_peer(path: Path, end: socket.socket) -> None:
    """Raise EnvironmentLacks when another user serves this socket."""
    facts = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", facts)
    if user not in (os.geteuid(), 0):
        raise EnvironmentLacks(f"{path} is served by {user_name(user)}, who is not trusted")


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
