"""Does a task of an analysis in a process that an engine chose, perhaps on another machine.

There the plugin's file may be missing, captures may have other places, and ringline and Python may
be others. So a task brings an envelope along: what it needs of the machine that asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from ringline.shm import cache_folder
from ringline.shm.control import describe
from ringline.shm.errors import EnvironmentLacks, RinglineError, reason_of
from ringline.shm.text import printable
from ringline.shm.version import version
from ringline.workers.analysis import children, parcel

IDLE_SECONDS = 60.0  # a child that nobody needs for so long is ended
_LOOK_SECONDS = 0.05
_KEPT = 64  # analyses whose cancellation is remembered

# An expression for (host, versions). It is a text, since it is evaluated where ringline may be
# missing.
PROBE = """(
    __import__("socket").gethostname(),
    {
        "ringline": next((
            it.version
            for it in __import__("importlib.metadata").metadata.distributions(name="ringline")
        ), None),
        "Python": __import__("platform").python_version(),
        "machine": __import__("platform").machine(),
    },
)"""


def versions() -> dict[str, str | None]:
    """Those of this process."""
    return {
        "ringline": version(),
        "Python": platform.python_version(),
        "machine": platform.machine(),
    }


def differs(here: Mapping[str, str | None], there: Mapping[str, str | None], host: str) -> str:
    """What of a worker is not as it is here, as a sentence; "" when all is."""
    for name, mine in here.items():
        theirs = there.get(name)
        if theirs == mine:
            continue
        if theirs is None:
            return (
                f"the worker on {host} has no {name}; here it is {name} {mine}: install the same "
                "version there"
            )
        if name == "machine":
            return (
                f"the worker on {host} is a machine of type {theirs}, this one is {mine}: the "
                "compiled part of a plugin needs one type"
            )
        return (
            f"the worker on {host} has {name} {theirs}, and here it is {name} {mine}: install "
            "the same version on both"
        )
    return ""


def do(
    envelope: Mapping[str, Any],
    job: Mapping[str, Any],
    parts: Sequence[bytes],
    silence: float,
    cancellation: children.Cancellation,
) -> tuple[dict[str, Any], bytes]:
    """Do one job; the answer and the part that belongs to it, as of `children.do`.

    envelope: `versions` of who asks; `analysis`, the name of its analysis; `plugin`, as for
        `children.do`; `cwd`, its working directory; `fingerprint` and `version` of the plugin;
        and `root`, `entry` and `files`, those of the parcel if there is one.
    """
    host = socket.gethostname()
    if why := differs(envelope["versions"], versions(), host):
        return {"error": describe(EnvironmentLacks(why))}, b""
    cancellation = _remember(envelope["analysis"], cancellation)
    plugin = dict(envelope["plugin"]) | {"away": True}
    if os.path.isdir(envelope["cwd"]):
        plugin["cwd"] = envelope["cwd"]
    job = {**job, "fingerprint": envelope["fingerprint"], "version": envelope["version"]}
    place = ""
    try:
        if envelope["files"]:
            place = plugin["search"] = parcel.unpacked(envelope["files"])
            found = envelope["entry"]
            plugin["found"] = os.path.join(place, found[2:]) if found[:2] == "./" else found
        if job["do"] in ("run", "share") and (why := _away(job, envelope["cwd"], host)):
            return {"broken": why}, b""
        with _idle, _alone_at_first(plugin, cancellation):
            answer, part = children.do(
                plugin, job, parts, silence=silence, cancellation=cancellation
            )
    except RinglineError as error:
        return {"error": _on(host, describe(error))}, b""
    except OSError as error:  # of the cache
        lacks = EnvironmentLacks(f"a task cannot be done: {reason_of(error)}")
        return {"error": _on(host, describe(lacks))}, b""
    if place:
        answer = parcel.in_words(answer, place, envelope["root"])
    if "error" in answer:
        answer["error"] = _on(host, answer["error"])
    return answer, part


def _on(host: str, error: Mapping[str, Any]) -> dict[str, Any]:
    return {**error, "message": f"{error['message']} (on the worker's machine {host})"}


def _away(job: dict[str, Any], cwd: str, host: str) -> str:
    """Why this machine cannot read the capture of a job, as a sentence; "" when it can.

    The numbers of device and inode differ between machines; a file of the same size and time of
    change is the same capture.
    """
    path, identity = job["path"], job["identity"]
    if "://" in path or identity is None or len(identity) != 4:
        return ""
    shown = printable(path)
    try:
        found = os.stat(os.path.join(cwd, path))
        with open(os.path.join(cwd, path), "rb"):
            pass
    except OSError as error:
        return (
            f"{shown}: cannot be read on the worker's machine {host}: {reason_of(error)}: put it "
            "where all machines have it under this path"
        )
    if not os.path.isdir(cwd) and not os.path.isabs(path):
        return f"{shown}: the worker's machine {host} has no folder {printable(cwd)}"
    there = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]
    if there[:2] != identity[:2]:
        if there[2:] != identity[2:]:
            return (
                f"{shown}: is another file on the worker's machine {host}: {there[2]:,} bytes, "
                f"here it has {identity[2]:,}, or it was changed at another time"
            )
        job["identity"] = there
    return ""


# What this process knows of analyses


_lock = threading.Lock()
_cancellations: dict[str, children.Cancellation] = {}


def _remember(analysis: str, given: children.Cancellation) -> children.Cancellation:
    """The cancellation of an analysis in this process."""
    with _lock:
        found = _cancellations.setdefault(analysis, given)
        while len(_cancellations) > _KEPT:
            del _cancellations[next(iter(_cancellations))]
        return found


def end(analysis: str) -> None:
    """End what this process does for an analysis, and the children that wait for more."""
    _remember(analysis, children.Cancellation()).cancel()
    children.close()


@contextlib.contextmanager
def _alone_at_first(
    plugin: Mapping[str, Any], cancellation: children.Cancellation
) -> Iterator[None]:
    """The first task with a plugin waits until no other process of this machine has its first one:
    so a plugin is compiled once, and all others take the code from the cache."""
    key = hashlib.sha256(json.dumps(plugin, sort_keys=True).encode()).hexdigest()[:24]
    folder = None if key in _prepared else cache_folder.folder("locks")
    if folder is None:
        yield
        return
    with open(os.path.join(folder, key[0]), "a", encoding="utf-8") as file:
        while not _is_locked(file):
            cancellation.check()
            time.sleep(_LOOK_SECONDS)
        if key not in _prepared:
            answer, _ = children.do(plugin, {"do": "prepare"})
            if "error" not in answer and "died" not in answer:
                _prepared.add(key)
    yield


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_prepared: set[str] = set()


class _Idle:
    """Ends the children when no task ran for IDLE_SECONDS: who asked may be gone without a word."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with nothing, and with a lock that no other thread holds."""
        self._lock = threading.Lock()
        self._running = 0
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._timer = threading.Timer(IDLE_SECONDS, self._end)
                self._timer.daemon = True
                self._timer.start()

    def _end(self) -> None:
        with self._lock:
            if self._running:
                return
        children.close()


_idle = _Idle()
os.register_at_fork(after_in_child=_idle.begin)
