"""A run for the kill tests: its children by role, its status, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringline.pipeline.commands.status import status
from ringline.pipeline.telemetry.status_socket import folders
from ringline.shm.errors import RinglineError
from ringline.shm.segments import segments_of

SEED = int(os.environ.get("RINGLINE_SEED", "0")) or random.randrange(1, 10**6)
TIMEOUT = 60.0  # seconds

ROLES = {"pipeline.driver": "driver", "start.py": "worker", "sim82599.process": "card"}

CONFIG = """
name = "{name}"
[port.wan]
device = "sim:82599"
queues = 2
process = {process}
wire = {{ flows = {{ count = 64 }} }}
[worker]
plugin = "forward"
restart = {{ intensity = 1000, period = 1.0 }}
[metrics]
listen = "127.0.0.1:0"
"""


def fail_timeout(seconds: float, what: str) -> None:
    raise AssertionError(f"{what} did not happen within {seconds:g} s (seed {SEED})")


def wait_until(condition: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            fail_timeout(seconds, what)
        time.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sockets_of(name: str) -> list[Path]:
    paths = [folder / f"{name}.sock" for folder in folders()]
    return [path for path in paths if path.exists()]


def status_of(name: str) -> dict[str, Any]:
    """Return what `ringline status NAME --json` prints, or {} if it refuses. Without a process of
    its own, so that waiting for a state costs little. An instance without a socket is not asked
    for: the refusal would remove what other dead instances left, which other tests look at."""
    if not sockets_of(name):
        return {}
    try:
        told: dict[str, Any] = json.loads(status(name, as_json=True))
    except RinglineError:
        return {}
    return told


def answer_of(name: str) -> dict[str, Any]:
    """Wait for a status: on a busy machine a run may not answer the first question."""
    told: dict[str, Any] = wait_until(lambda: status_of(name), "an answer of the run")
    return told


class RunHarness:
    """`ringline run` in a process of its own, with its output and report."""

    def __init__(
        self, name: str, folder: Path, *, process: bool = False, begin: bool = True
    ) -> None:
        self.name = name
        self._folder = folder
        self._config = folder / f"{name}.toml"
        self._config.write_text(CONFIG.format(name=name, process=str(process).lower()))
        self._report = self._folder / f"{self.name}.json"
        self._output = self._folder / f"{self.name}.out"
        self.command = ["ringline", "run", str(self._config), "--report", str(self._report)]
        if begin:
            self.start()

    def start(self, *options: str) -> None:
        self._report.unlink(missing_ok=True)
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*self.command, *options],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def children(self) -> list[tuple[int, str]]:
        """Return process id and role of every child."""
        found = []
        with contextlib.suppress(OSError):
            pid = self.process.pid
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(OSError):
                    command = Path(f"/proc/{child}/cmdline").read_text()
                    found += [(int(child), ROLES[mark]) for mark in ROLES if mark in command]
        return found

    def pids(self, role: str) -> list[int]:
        return [pid for pid, found in self.children() if found == role]

    def first(self, role: str) -> int:
        """Wait for a child of this role; return its process id."""

        def find() -> list[int]:
            assert self.process.poll() is None, self.output
            return self.pids(role)

        pids: list[int] = wait_until(find, f"the start of a {role}")
        return pids[0]

    def status(self) -> dict[str, Any]:
        return status_of(self.name)

    def answer(self) -> dict[str, Any]:
        return answer_of(self.name)

    def serving(self) -> dict[str, Any]:
        """Wait until packets flow; return the status."""

        def flowing() -> dict[str, Any]:
            assert self.process.poll() is None, self.output
            told = self.status()
            flows = told and told["state"] == "running"
            flows = flows and told["ports"]["wan"]["transmitted"]["packets"] > 0
            return told if flows else {}

        told: dict[str, Any] = wait_until(flowing, "traffic")
        return told

    def end(self) -> tuple[int, dict[str, Any]]:
        """Terminate the run, if it runs; return its exit code and report."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> tuple[int, dict[str, Any]]:
        """Wait for the end of the run; return its exit code and report."""
        try:
            code = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            fail_timeout(TIMEOUT, f"the end of the run; its output:\n{self.output}")
        text = self._report.read_text() if self._report.exists() else ""
        return code, json.loads(text) if text else {}

    def left(self) -> list[str]:
        """Return the segments and sockets of this instance that still exist."""
        return segments_of(self.name) + [str(path) for path in sockets_of(self.name)]

    def kill_all(self) -> None:
        pids = [pid for pid, _ in self.children()]
        self.process.kill()
        self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self.left():
            os.unlink(path)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_end(pids: list[int]) -> None:
    """Wait until all processes have ended."""
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of all children")


def wrong(report: dict[str, Any]) -> dict[str, int]:
    """Return the residuals that are not 0."""
    return {name: off for name, off in report["balance"].items() if off}


def check_counts(report: dict[str, Any]) -> None:
    """Check that the books balance and that the counters of the port add up."""
    assert wrong(report) == {}, f"{wrong(report)} (seed {SEED})"
    port = report["ports"]["wan"]
    dropped = sum(port["drops"].values())
    assert port["received"]["packets"] == port["forwarded"] + dropped + port["in_flight"], port


def drops(report: dict[str, Any], reason: str) -> list[int]:
    """Return the packets dropped for `reason`, per queue."""
    return [queue[f"drop_{reason}"] for queue in report["ports"]["wan"]["queues"]]


def worker_pid(told: dict[str, Any], queue: int) -> int:
    pid: int = told["workers"][queue]["pid"] or 0
    return pid


def restarts(told: dict[str, Any]) -> list[int]:
    return [worker["restarts"] for worker in told["workers"]]


def kill_and_wait_for_successor(
    run: RunHarness, queue: int, number: signal.Signals = signal.SIGKILL
) -> None:
    before = run.serving()
    kill(worker_pid(before, queue), number)

    def replaced() -> bool:
        told = run.status()
        if not told:
            return False
        worker = told["workers"][queue]
        return bool(worker["up"]) and worker["generation"] > before["workers"][queue]["generation"]

    wait_until(replaced, f"the start of a successor for worker {queue}")
