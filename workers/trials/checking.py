"""Is a plugin what the configuration needs? Found out in a child, before anything starts."""

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

_LOOK_SECONDS = 0.1
_ENDING_SECONDS = 1.0
PREPARE_SECONDS = 60.0  # numba without its cache needs some seconds, a busy machine more


def check(
    plugin: str,
    options: Mapping[str, Any],
    ports: Sequence[str],
    *,
    queue: int = 0,
    folder: str | None = None,
    state_bytes: int = 4 << 20,
    debug: bool = False,
    seconds: float = PREPARE_SECONDS,
) -> list[str]:
    """What is wrong with `plugin`, as sentences; an empty list when it could run now.

    It is imported, given its options, prepared (which compiles it, and leaves the result
    in the cache) and set up with memory that is thrown away. `folder` is where a plugin
    that is a file is looked for.
    """
    job = {
        "do": "check",
        "plugin": plugin,
        "options": dict(options),
        "ports": list(ports),
        "queue": queue,
        "folder": folder,
        "state_bytes": state_bytes,
        "debug": debug,
    }
    child = start(pass_fds=())
    try:
        tell(child, job)
        line = _answer(child, seconds)
    except TimeoutError:
        return [f"plugin {plugin} was not ready after {seconds:g} s: does it wait for something?"]
    finally:
        end(child)
    if not line:
        return [f"plugin {plugin} {how_it_ended(child.returncode)} while it was made ready"]
    answer = json.loads(line)
    return list(answer["problems"]) if "problems" in answer else [answer["error"]["message"]]


def start(pass_fds: Sequence[int]) -> subprocess.Popen[str]:
    """A child that does one job (rehearsal.py)."""
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
    """Give the child its job."""
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(json.dumps(job))


def _answer(child: subprocess.Popen[str], seconds: float) -> bytes:
    """The line that it answers, b"" when it ends without; TimeoutError after `seconds`."""
    assert child.stdout is not None
    line, until = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        over = has_ended(child)  # its output may stay open: another process may have it, too
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


def has_ended(child: subprocess.Popen[str]) -> bool:
    """Whether the child has ended. It is not reaped: its number stays that of its group."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def await_end(child: subprocess.Popen[str]) -> None:
    """Give a child that closed its output the time to end by itself."""
    until = time.monotonic() + _ENDING_SECONDS
    while not has_ended(child) and time.monotonic() < until:
        time.sleep(0.005)


def end(child: subprocess.Popen[str]) -> None:
    """Make sure that the child is gone with all that it started, and its pipes closed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what it did not read any more
                pipe.close()
    child.wait()


def how_it_ended(status: int) -> str:
    """`crashed (SIGSEGV)` or `ended the process (exit status 3)`."""
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended the process (exit status {status})"
