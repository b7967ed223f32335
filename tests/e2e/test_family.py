"""Processes that a plugin starts: none outlives its worker, and none stays as a zombie."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.shm.family import END_WITH

from .run_harness import TIMEOUT, alive, kill, wait_until

PLUGIN = '''
import os, time


class Orphans:
    """Leaves a process in a session of its own, which notes its id in a file."""

    def setup(self, worker):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                with open(f"{os.path.dirname(__file__)}/{worker.queue}.{os.getpid()}", "w"):
                    pass
                time.sleep(SECONDS)
            os._exit(0)
        os.wait()

    def process(self, batch):
        batch.verdicts[:] = batch.ports
'''

CONFIG = """
name = "{name}"
memory.hugepages = "off"
metrics.listen = "off"
[port.wan]
device = "sim:82599"
queues = 2
wire = {{ flows = {{ count = 8 }}, rate_mpps = 0.01 }}
[worker]
plugin = "./orphans.py:Orphans"
restart = {{ intensity = 1000, period = 1.0 }}
"""


class Run:
    """A run of the plugin above, whose orphans sleep for `seconds`."""

    def __init__(self, name: str, folder: Path, seconds: float, *before: str) -> None:
        self.folder = folder
        (folder / "orphans.py").write_text(PLUGIN.replace("SECONDS", str(seconds)))
        (folder / "run.toml").write_text(CONFIG.format(name=name))
        self.process = subprocess.Popen(
            [*before, "ringline", "run", "run.toml"],
            cwd=folder,
            # In a PID namespace, the number of this process means nothing.
            env={name: value for name, value in os.environ.items() if name != END_WITH},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def orphans(self, queue: int) -> set[int]:
        assert self.process.poll() is None, self.process.communicate()[1]
        return {int(file.suffix[1:]) for file in self.folder.glob(f"{queue}.*")}

    def end(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode


@pytest.fixture
def start(instance: Callable[[], str], tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(seconds: float, *before: str) -> Run:
        runs.append(Run(instance(), tmp_path, seconds, *before))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.communicate()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(supervisor: int) -> list[int]:
    """The workers in the order of their start: their orphans have other parents than before."""
    return [
        pid
        for pid in children(supervisor)
        if b"start.py" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpgid(pid) == pid
    ]


def test_a_double_fork_ends_with_its_worker(start: Callable[..., Run]) -> None:
    run = start(600)
    wait_until(lambda: run.orphans(0) and run.orphans(1), "the start of the orphans")
    (first,), (second,) = run.orphans(0), run.orphans(1)
    assert alive(first)
    assert alive(second)
    status = subprocess.run(
        ["ringline", "status", "--json", Path(run.folder, "run.toml").read_text().split('"')[1]],
        capture_output=True,
        text=True,
        check=True,
    )
    pid = int(status.stdout.partition('"pid": ')[2].partition(",")[0])
    kill(pid)
    wait_until(lambda: not alive(first), "the end of the orphan of worker 0")
    wait_until(lambda: len(run.orphans(0)) == 2, "the orphan of its successor")
    assert alive(second), "its worker lives"
    (successor,) = run.orphans(0) - {first}
    assert run.end() == 0
    assert not alive(second)
    assert not alive(successor)


def test_zombies_are_reaped_as_process_1(start: Callable[..., Run]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to be process 1 of a PID namespace")
    run = start(0.1, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    wait_until(lambda: children(run.process.pid), "the start of process 1")
    (supervisor,) = children(run.process.pid)
    wait_until(lambda: run.orphans(0) and run.orphans(1), "the start of the orphans")
    for number in range(2, 5):
        for pid in workers(supervisor)[:1]:
            kill(pid)
        wait_until(
            lambda: len(run.orphans(0) | run.orphans(1)) > number,  # noqa: B023
            "the start of another orphan",
        )
    wait_until(lambda: all(alive(pid) for pid in children(supervisor)), "the end of all zombies")
    os.kill(supervisor, signal.SIGTERM)
    run.process.communicate(timeout=TIMEOUT)
    assert run.process.returncode == 0
