"""Start `ringline run` as a child process for the benchmark.

Guarantees (tests in tests/pipeline/bench/test_running.py):
 - a run ends when its benchmark is killed (test_a_run_ends_with_its_benchmark)
 - a run ends in order where Ctrl-C is ignored, as in a background job, and leaves nothing
   (test_a_run_in_a_background_job_ends_in_order)
 - the folder of a benchmark that was killed is removed by the next one
   (test_the_folder_of_a_killed_benchmark_is_removed)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ringline.pipeline.bench.machine import USABLE
from ringline.pipeline.bench.sampling.counters import Counters, Layout, layout_of
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import SECONDS, Windows, sample
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_client import ask
from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.shm.family import END_WITH

START_SECONDS = deadlines.BENCH_START
STOP_SECONDS = deadlines.BENCH_STOP
POLL_SECONDS = 0.005
WARM_SECONDS = 0.5
OURS = (sys.executable, "-P", "-m", "ringline.pipeline.commands.cli")
# A word in the command line of a process of a run: today's, and that of older versions.
DRIVER = frozenset({"ringline.pipeline.driver.process", "ringline.pipeline.driver"})
WORKER = frozenset({"process.process", "process"})
FOLDER = "ringline-bench-"  # the folder of a run: then the process id of its benchmark, and -


def ending(code: int) -> str:
    """How a process ended, from its return code as of subprocess.Popen."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"it was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was killed by signal {-code}"


def remove_stale_folders() -> None:
    """Remove the folders of benchmarks that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        ours = folder.lstat().st_uid == os.geteuid() and pid.isdecimal()
        if ours and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class Running:
    """A run of the configuration `text`; leaving the context ends it with SIGTERM.

    `command` starts ringline, this version without it. `started` is time.monotonic() at the start;
    `report` is filled by `end`.
    """

    def __init__(self, text: str, command: Sequence[str] = OURS) -> None:
        self.name = f"bench-{os.getpid()}"
        self.report: dict[str, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix=f"{FOLDER}{os.getpid()}-")
        self.folder = Path(self._folder.name)
        config = self.folder / "bench.toml"
        config.write_text(f'name = "{self.name}"\n{text}\n[metrics]\nlisten = "off"\n')
        self._errors = (self.folder / "errors").open("w+")
        self._report = self.folder / "report.json"
        os.sched_setaffinity(0, USABLE)  # the run inherits it
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [*command, "run", str(config), "--report", str(self._report)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={**os.environ, END_WITH: str(os.getpid())},
        )

    def __enter__(self) -> Running:
        return self

    def snapshot(self) -> Snapshot:
        """A snapshot of the run, as soon as it answers.

        Raises EnvironmentLacks with the last line of its error output when it has ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise EnvironmentLacks(f"the measured run ended early: {self._last_error()}")
            try:
                return ask(self.name)
            except RinglineError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def processes(self) -> list[int]:
        """The process ids of the supervisor and its children."""
        found = [self._process.pid]
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return found + [int(pid) for pid in children.read_text().split()]

    def pids(self, words: frozenset[str]) -> list[int]:
        """The processes of the run that have one of `words`, DRIVER or WORKER, as an argument."""
        found = []
        for pid in self.processes()[1:]:
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if words.intersection(line.split("\0")):
                    found.append(pid)
        return found

    def pid(self, words: frozenset[str]) -> int:
        """The only process of the run with one of `words`.

        Raises EnvironmentLacks when it has ended, as when it was killed.
        """
        found = self.pids(words)
        if len(found) != 1:
            raise EnvironmentLacks("bench: a process of the measured run ended: try again")
        return found[0]

    def first_packet(self, counters: Counters) -> float:
        """Wait for the first sent packet; the seconds from the start to it."""
        deadline = self.started + START_SECONDS
        while counters.read()["sent"] == 0:
            self._check(deadline, "no packet was sent")
        return time.monotonic() - self.started

    def windows(self, counters: Counters, cpus: Sequence[int], seconds: float = SECONDS) -> Windows:
        """Wait for the first packet and a little longer, then measure for `seconds` in windows.

        The counters are those of `Counters.read`. `cpus` are those that the run uses: if they are
        fewer than its processes, these lose them to each other, which is no disturbance.
        Raises EnvironmentLacks when the run ends early.
        """
        self.first_packet(counters)
        time.sleep(WARM_SECONDS)
        measured = {f"worker {number}": pid for number, pid in enumerate(self.pids(WORKER))}
        measured.update(zip(("driver",), self.pids(DRIVER), strict=False))
        watch = Watch(
            cpus,
            measured,
            helpers=[self._process.pid],
            shared=len(set(cpus)) < len(measured),
        )
        found = sample(counters.read, seconds, watch)
        self._check(time.monotonic() + 1, "")
        return found

    def counters(
        self, *, ports: int = 1, queues: int = 1, layout: Layout | None = None
    ) -> Counters:
        """The counters of the run, as soon as it has all its memory."""
        found = layout or layout_of()
        deadline = self.started + START_SECONDS
        while True:
            try:
                return Counters(self.name, found, ports=ports, queues=queues)
            except EnvironmentLacks:
                self._check(deadline, "the run made no memory")

    def _check(self, deadline: float, missing: str) -> None:
        """Wait a moment. Raises EnvironmentLacks when the run has ended, or at the deadline."""
        if self._process.poll() is not None:
            raise EnvironmentLacks(f"the measured run ended early: {self._last_error()}")
        if time.monotonic() > deadline:
            raise EnvironmentLacks(f"{missing} within {START_SECONDS:g} s")
        time.sleep(POLL_SECONDS)

    def end(self) -> dict[str, Any]:
        """End the run with SIGTERM; its report. Raises EnvironmentLacks when it failed."""
        self._stop()
        if self._process.returncode != 0 or not self._report.exists():
            raise EnvironmentLacks(f"the measured run failed at its end: {self._last_error()}")
        self.report = json.loads(self._report.read_text())
        return self.report

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _last_error(self) -> str:
        self._errors.flush()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1].removeprefix("ringline: ") if lines else ending(self._process.returncode)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self.report:
                self.end()
        finally:
            self._stop()
            self._errors.close()
            self._folder.cleanup()


def resident(pid: int) -> float:
    """Resident memory of a process in MB (10^6 bytes), without shared memory segments."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024 / 1e6
