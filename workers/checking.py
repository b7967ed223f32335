"""Is a plugin what the configuration needs? Found out in a child, before anything starts."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ringline.workers import launch

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
        output, _ = child.communicate(json.dumps(job), timeout=seconds)
    except subprocess.TimeoutExpired:
        return [f"plugin {plugin} was not ready after {seconds:g} s: does it wait for something?"]
    finally:
        end(child)
    for line in output.splitlines():
        answer = json.loads(line)
        if "problems" in answer:
            return list(answer["problems"])
        if "error" in answer:
            return [answer["error"]["message"]]
    return [f"plugin {plugin} {how_it_ended(child.returncode)} while it was made ready"]


def start(pass_fds: Sequence[int]) -> subprocess.Popen[str]:
    """A child that does one job (rehearsal.py)."""
    return subprocess.Popen(
        launch.command("rehearsal"),
        env=launch.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=pass_fds,
        text=True,
        start_new_session=True,
    )


def end(child: subprocess.Popen[str]) -> None:
    """Make sure that the child is gone, and its pipes closed."""
    if child.poll() is None:
        child.kill()
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
