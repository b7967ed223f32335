"""A run that a benchmark started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from ringline.shm.segments import segments_of

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
    time.sleep(600)
"""


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_ends_with_its_benchmark() -> None:
    command = [sys.executable, "-c", BENCHMARK]
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
