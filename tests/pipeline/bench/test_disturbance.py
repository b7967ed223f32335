"""What counts as a disturbance of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ringline.pipeline.bench.sampling.disturbance import (
    State,
    Watch,
    lost_processor,
    process_seconds,
    processor_seconds,
    reasons,
)

BEFORE = State(at=10.0, stolen={0: 1.0, 1: 2.0}, busy={0: 5.0, 1: 5.0}, own=3.0, switches={"a": 7})
# 2 s later, both processors busy with the measured processes all the time.
QUIET = State(at=12.0, stolen={0: 1.0, 1: 2.0}, busy={0: 7.0, 1: 7.0}, own=7.0, switches={"a": 27})
SPIN = "import time\nwhile True: pass"


def test_the_measured_work_is_no_disturbance() -> None:
    assert reasons(BEFORE, QUIET) == ""


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (replace(QUIET, stolen={0: 1.0, 1: 2.5}), "the hypervisor took 25% of CPU 1"),
        (replace(QUIET, own=6.0), "other processes used 25% of CPUs 0 and 1"),
        (replace(QUIET, switches={"a": 1007}), "the a lost its CPU 500 times a second"),
    ],
)
def test_each_reason_has_a_figure(after: State, told: str) -> None:
    assert reasons(BEFORE, after) == told


def test_several_reasons_are_told_together() -> None:
    after = replace(QUIET, stolen={0: 1.4, 1: 2.0}, own=6.0)
    assert reasons(BEFORE, after) == (
        "the hypervisor took 20% of CPU 0; other processes used 25% of CPUs 0 and 1"
    )


def test_processes_that_share_a_processor_may_lose_it_to_each_other() -> None:
    assert reasons(BEFORE, replace(QUIET, switches={"a": 1007}), shared=True) == ""


def test_other_load_is_noticed() -> None:
    cpu = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # the other process inherits it
    try:
        with subprocess.Popen([sys.executable, "-c", SPIN]) as other:
            watch = Watch([cpu])
            watch.start()
            time.sleep(1.0)
            told = watch.end()
            other.kill()
    finally:
        os.sched_setaffinity(0, before)
    assert f"of CPU {cpu}" in told
    assert "other processes used" in told


def test_the_kernel_counts_this_process() -> None:
    stolen, busy = processor_seconds([0])
    assert set(stolen) == set(busy) == {0}
    assert busy[0] > 0
    assert lost_processor(os.getpid()) > 0
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert process_seconds(os.getpid()) > 0


def test_a_process_that_has_ended_counts_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        other.wait()
    assert lost_processor(other.pid) == 0
    assert process_seconds(other.pid) == 0.0
