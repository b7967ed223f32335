"""Checks a plugin and its options in a child process, before a run starts.

The functions that start and end the child also serve trial.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ringline.workers.process import launch

_LOOK_SECONDS = 0.1  # between two looks whether the child has ended
_ENDING_SECONDS = 1.0  # for a child that closed its output to exit
SILENCE_SECONDS = 1.0  # the default of worker.silence
PREPARE_SECONDS = 180.0  # timeout; numba without its cache needs up to a minute


def check(
    plugin: str,
    options: Mapping[str, Any] | None,
    ports: Sequence[str],
    *,
    queue: int = 0,
    folder: str | None = None,
    places: Mapping[str, str] | None = None,
    state_bytes: int = 4 << 20,
    blanks: int = 0,
    debug: bool = False,
    only_import: bool = False,
    seconds: float = PREPARE_SECONDS,
    limit: float = SILENCE_SECONDS,
    warnings: list[str] | None = None,
) -> list[str]:
    """The problems of `plugin`, as sentences; an empty list when it can run. Sentences about
    batches and ticks that took more than `limit` seconds are added to `warnings`.

    In a child process this imports the plugin, checks its options, prepares it (which fills
    the cache of compiled plugins) and runs its setup, some batches of sample packets and a tick,
    with memory that is then discarded. A file name in `plugin` or in an option is relative to
    `folder`; `places` are those of the options in the configuration file, for messages; `seconds`
    is the timeout. `only_import` ends after the options, which are not checked when
    they are None.
    """
    job = {
        "do": "check",
        "plugin": plugin,
        "options": None if options is None else dict(options),
        "ports": list(ports),
        "queue": queue,
        "folder": folder,
        "places": dict(places or {}),
        "state_bytes": state_bytes,
        "blanks": blanks,
        "debug": debug,
        "limit": limit,
        "only_import": only_import,
    }
    child = start(pass_fds=())
    try:
        tell(child, job)
        line = _answer(child, seconds)
    except TimeoutError:
        return [f"plugin {plugin} was not ready after {seconds:g} s: it may wait for something"]
    finally:
        end(child)
    if not line:
        return [f"plugin {plugin} {how_it_ended(child.returncode)} while it was made ready"]
    answer = json.loads(line)
    if warnings is not None:
        warnings += answer.get("warnings", [])
    return list(answer["problems"]) if "problems" in answer else [answer["error"]["message"]]


def start(pass_fds: Sequence[int]) -> subprocess.Popen[str]:
    """Start a child for one job (dry_run.py), which inherits the file descriptors `pass_fds`."""
    return subprocess.Popen(
        launch.command("trials.dry_run"),
        env=launch.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=pass_fds,
        text=True,
        start_new_session=True,
    )


def tell(child: subprocess.Popen[str], job: Mapping[str, Any]) -> None:
    """Write the job to the standard input of the child, and close it."""
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(json.dumps(job))


def _answer(child: subprocess.Popen[str], seconds: float) -> bytes:
    """The answer of the child, one line; b"" when it ends without one.

    Raises TimeoutError after `seconds`.
    """
    assert child.stdout is not None
    line, until = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        over = has_ended(child)  # before the read; its output may be open in another process, too
        if select.select([child.stdout], [], [], _LOOK_SECONDS)[0]:
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                await_end(child)
                return b""
            line += data
        elif over:
            return b""
        elif time.monotonic() > until:
            raise TimeoutError
    return line


def has_ended(child: subprocess.Popen[Any]) -> bool:
    """Whether the child has exited. It is not reaped, so its process group number stays valid."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def await_end(child: subprocess.Popen[Any]) -> None:
    """Wait up to _ENDING_SECONDS for a child that closed its output to exit."""
    until = time.monotonic() + _ENDING_SECONDS
    while not has_ended(child) and time.monotonic() < until:
        time.sleep(0.005)


def end(child: subprocess.Popen[Any]) -> None:
    """Kill the child and the processes that it started, reap it, and close the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # the child did not read all of its input
                pipe.close()
    child.wait()


def how_it_ended(status: int) -> str:
    """`crashed (SIGSEGV)` or `ended the process (exit status 3)`."""
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended the process (exit status {status})"
