"""Clusters of Dask in processes of their own, for tests of engines."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

DASK = [str(Path(sys.executable).parent / "dask")]
SECONDS = 90.0  # for a process of a cluster to start


def wait_for(what: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until `what` returns something true; fails after `seconds`."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


class Cluster:
    """A scheduler, to which a test adds workers: single-threaded processes without a nanny."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self._file = folder / "scheduler.json"
        self.log = open(folder / "log", "wb")  # noqa: SIM115
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"
        )

    def _start(
        self,
        what: str,
        *arguments: str,
        within: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*within, *DASK, what, "--scheduler-file", str(self._file), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **(environment or {})},
        )

    @property
    def address(self) -> str:
        """For the option --address."""
        import json

        wait_for(lambda: self._file.exists() and self._file.stat().st_size)
        return str(json.loads(self._file.read_text())["address"])

    def add(self, hidden: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker, which sees an empty folder in place of `hidden`; returns its process."""
        within: list[str] = []
        if hidden is not None:
            if os.geteuid() != 0:
                pytest.skip("needs root: a mount namespace hides a folder from one worker")
            script = 'mount -t tmpfs none "$0" && exec "$@"'
            within = ["unshare", "--mount", "sh", "-c", script, str(hidden)]
        worker = self._start(
            "worker",
            *("--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--local-directory", str(self.folder / "local")),
            within=within,
            environment=environment,
        )
        self.workers.append(worker)
        return worker

    def wait(self) -> None:
        """Wait until the scheduler knows all workers that were added and run."""
        from distributed import Client

        with Client(self.address, timeout=SECONDS) as client:
            client.wait_for_workers(sum(it.poll() is None for it in self.workers), SECONDS)

    def close(self) -> None:
        """End all processes."""
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait()
        self.log.close()


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 0) -> Iterator[Cluster]:
    """A scheduler with so many workers."""
    folder.mkdir(exist_ok=True)
    made = Cluster(folder)
    try:
        for _ in range(workers):
            made.add()
        if workers:
            made.wait()
        yield made
    finally:
        made.close()


def descendants_of(parent: int) -> list[int]:
    """All processes that descend from one."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, task.read_text().split()):
            found += [pid, *descendants_of(pid)]
    return found
