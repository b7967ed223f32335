"""A run that a benchmark started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ringline.pipeline.bench.machine import Machine
from ringline.pipeline.bench.measurements import pipeline
from ringline.pipeline.bench.running import (
    DRIVER,
    FOLDER,
    WORKER,
    Running,
    ending,
    remove_stale_folders,
)
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.segments import segments_of

TRAFFIC = """
memory.hugepages = "off"
[port.wan]
device = "sim:82599"
wire = { flows = { count = 4 } }
"""

# Prints the process ids of a run as soon as it answers, and waits.
BENCHMARK = """
import sys, time
from ringline.pipeline.bench.running import Running
text = '''
memory.hugepages = "off"
[port.wan]
device = "sim:82599"
wire = { flows = { count = 4 }, rate_mpps = 0.001 }
'''
with Running(text) as run:
    run.snapshot()
    print(run._folder.name, *run.processes(), flush=True)
    time.sleep(float(sys.argv[1]))
    print(run.end()["exit"]["code"])
"""


def test_the_folder_of_a_killed_benchmark_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    killed = tmp_path / f"{FOLDER}{ended.pid}-abc"
    others = [tmp_path / f"{FOLDER}{os.getpid()}-abc", tmp_path / f"{FOLDER}other-abc"]
    for folder in (killed, *others):
        (folder / "inside").mkdir(parents=True)
    (tmp_path / f"{FOLDER}{ended.pid}-link").symlink_to(others[1])
    remove_stale_folders()
    assert [folder.exists() for folder in (killed, *others)] == [False, True, True]
    assert (others[1] / "inside").exists(), "a link was followed"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "exit code 1"),
        (-signal.SIGKILL, "it was killed by SIGKILL"),
        (-99, "it was killed by signal 99"),
    ],
)
def test_the_end_of_a_process_is_said(code: int, said: str) -> None:
    assert ending(code) == said


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_ends_with_its_benchmark() -> None:
    command = [sys.executable, "-c", BENCHMARK, "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        try:
            assert bench.stdout is not None
            folder, *pids = bench.stdout.readline().split()
            assert len(pids) >= 3, "the supervisor, the driver and a worker"
            assert all(map(lives, pids))
        finally:
            bench.kill()
    until = time.monotonic() + 60
    while any(map(lives, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(lives, pids))
    assert segments_of(f"bench-{bench.pid}") == []
    for file in Path(folder).iterdir():  # the killed benchmark could not remove it
        file.unlink()
    os.rmdir(folder)


def test_a_run_in_a_background_job_ends_in_order() -> None:
    """The shell starts a background job with SIGINT ignored, and its children inherit that."""
    command = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", BENCHMARK]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True) as bench:
        told, _ = bench.communicate(timeout=120)
    first, code = told.splitlines()
    folder, *pids = first.split()
    assert code == "0", "the exit code of the run: a run that had to be killed has no report"
    assert not any(map(lives, pids))
    assert not os.path.exists(folder)
    assert segments_of(f"bench-{bench.pid}") == []


def test_the_counters_of_a_run_are_read_in_windows() -> None:
    with Running(TRAFFIC) as run, run.counters() as counters:
        assert run.first_packet(counters) > 0
        found = run.windows(counters, sorted(os.sched_getaffinity(0)), 0.4)
        assert len(run.pids(DRIVER)) == len(run.pids(WORKER)) == 1
        report = run.end()
    assert 0 < sum(found.growth["sent"]) <= report["ports"]["wan"]["transmitted"]["packets"]
    assert sum(found.growth["driver"]) <= sum(found.seconds)


def test_a_run_that_ends_at_once_is_told_with_its_reason() -> None:
    ended = re.compile("the measured run ended early: .*walking")
    with pytest.raises(EnvironmentLacks, match=ended), Running("walking = 1") as run:
        run.counters()


def test_a_benchmark_that_is_terminated_leaves_nothing() -> None:
    command = ["-P", "-m", "ringline.pipeline.commands.cli", "bench", "pipeline", "--runs", "1"]
    background = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, *command]
    with subprocess.Popen(background, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        name = f"bench-{bench.pid}"
        until = time.monotonic() + 60
        while len(segments_of(name)) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(segments_of(name)) >= 4, "a run has begun"
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
    assert segments_of(name) == []


def test_a_worker_that_is_killed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(run: Running, *given: object) -> None:
        os.kill(run.pid(WORKER), signal.SIGKILL)
        time.sleep(1)

    monkeypatch.setattr(Running, "windows", kill)
    last = sorted(os.sched_getaffinity(0))[-1]
    with pytest.raises(EnvironmentLacks, match=r"bench: .* of the measured run ended: try again"):
        pipeline.throughput(last, last, 0.1)


def test_load_beside_an_idle_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a missed goal is "disturbed" as everywhere else."""
    monkeypatch.setattr(pipeline, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(pipeline, "SILENCE", 0.1)
    monkeypatch.setattr(pipeline, "SILENT_PACKETS", 2)
    wire = "flows = { count = 1, packets = 2 }, rate_mpps = 0.00001"
    monkeypatch.setattr(pipeline, "IDLE_WIRE", wire)
    monkeypatch.setattr(Watch, "end", lambda watch: "the hypervisor took 9% of CPU 0")
    cpus = (min(os.sched_getaffinity(0)),)
    memory, idle, late = pipeline._idle(Machine(cpus, 1.0, None, {}))
    assert not memory.disturbed
    assert idle.disturbed == late.disturbed == "the hypervisor took 9% of CPU 0"
