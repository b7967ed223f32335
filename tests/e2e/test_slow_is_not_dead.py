"""A worker that is slow, or that did not run, is not ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .run_harness import RunHarness, check_counts, wait_until

pytestmark = pytest.mark.slow

SLOW = """
import os
import signal
import time
import numpy as np
try:
    import numba
except ImportError:
    numba = None
class Base:
    n = 0
    def process(self, batch):
        self.n += 1
        for packet in batch: packet.verdict = packet.port
class First(Base):
    def process(self, batch):
        super().process(batch)
        if self.n == 1: time.sleep(1.5)
class Second(Base):
    def process(self, batch):
        super().process(batch)
        if self.n == 2: time.sleep(4)
class Stops(Base):
    def process(self, batch): os.kill(os.getpid(), signal.SIGSTOP)
class Ticks(Base):
    def tick(self, worker): time.sleep(4)
"""
# `compiled` tells how many versions of the helper there are before the first packet.
HELPER = """
import os
import numba
import numpy as np
@numba.njit
def score(values):
    total = 0.0
    for value in np.sort(values): total += np.log2(value + 1.0)
    return total
class Helped:
    def setup(self, worker):
        if not worker.rehearsal: worker.gauge("compiled").set(len(score.signatures))
    def process(self, batch):
        for packet in batch:
            score(np.frombuffer(packet.data, np.uint8))
            packet.verdict = packet.port
"""


def configured(run: RunHarness, folder: Path, plugin: str, worker: str = "") -> None:
    (folder / "slow.py").write_text(HELPER if plugin == "Helped" else SLOW)
    config = folder / f"{run.name}.toml"
    text = config.read_text().replace('"forward"', f'"./slow.py:{plugin}"\n{worker}')
    config.write_text(
        text.replace("flows = { count = 64 }", "flows = { count = 64 }, rate_mpps = 0.001")
    )


def run_for_a_while(run: RunHarness, batches: int = 20) -> list[int]:
    """The restarts after some batches of each worker."""
    run.start()
    run.serving()
    wait_until(
        lambda: all(w["counters"]["batches"] > batches for w in run.answer()["workers"]),
        "some batches",
    )
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    return [worker["restarts"] for worker in report["workers"]]


def test_the_first_batch_may_take_long(start: Callable[..., RunHarness], tmp_path: Path) -> None:
    run = start(begin=False)
    configured(run, tmp_path, "First")
    assert run_for_a_while(run) == [0, 0]


def test_a_worker_that_is_killed_at_the_end_is_told_of(
    start: Callable[..., RunHarness], tmp_path: Path
) -> None:
    """Within the 60 s of its first batch."""
    run = start(begin=False)
    configured(run, tmp_path, "Stops")
    run.start()

    def waiting() -> bool:
        ports = run.status().get("ports")
        return bool(ports) and ports["wan"]["in_flight"] > 64

    wait_until(waiting, "packets in flight")
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert "ringline: worker 0 did not stop in time; it is killed" in run.output


@pytest.mark.parametrize("plugin", ["Second", "Ticks"])
def test_the_limit_is_named_and_can_be_raised(
    start: Callable[..., RunHarness], tmp_path: Path, plugin: str
) -> None:
    run = start(begin=False)
    configured(run, tmp_path, plugin)
    run.start()
    sentence = (
        "made no progress for 1 s: its plugin did not return from a batch or tick; "
        "worker.silence in the configuration is the limit"
    )
    wait_until(
        lambda: f"ringline: worker 0 {sentence}; it is killed and replaced" in run.output,
        "the abort",
    )
    assert run.end()[0] == 0
    run = start(begin=False)
    configured(run, tmp_path, plugin, "silence = 10")
    assert run_for_a_while(run, 100) == [0, 0]


def test_helpers_are_compiled_before_the_first_packet(
    start: Callable[..., RunHarness], tmp_path: Path
) -> None:
    pytest.importorskip("numba", reason="numba is missing")
    run = start(begin=False)
    configured(run, tmp_path, "Helped")
    run.start()
    run.serving()
    code, report = run.end()
    assert code == 0, run.output
    assert [worker["restarts"] for worker in report["workers"]] == [0, 0]
    assert [worker["metrics"]["compiled"] for worker in report["workers"]] == [1, 1]


def test_a_pause_of_everything_ends_nothing(start: Callable[..., RunHarness]) -> None:
    """A machine that is stopped, a frozen container, a debugger. The supervisor goes on first."""
    run = start()
    before = run.serving()
    for seconds in (2.0, 0.6, 6.0):  # the last one is longer than every limit
        pids = [run.process.pid, *(pid for pid, _ in run.children())]
        for pid in reversed(pids):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.02)
        time.sleep(1.0)
    after = run.serving()
    assert [worker["pid"] for worker in after["workers"]] == [
        worker["pid"] for worker in before["workers"]
    ], run.output
    code, report = run.end()
    assert code == 0, run.output
    assert [worker["restarts"] for worker in report["workers"]] == [0, 0]
    check_counts(report)


def test_a_worker_that_is_stopped_alone_is_still_found(start: Callable[..., RunHarness]) -> None:
    run = start()
    first = run.serving()["workers"][0]["pid"]
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: run.answer()["workers"][0]["restarts"] == 1, "the successor")
    assert run.end()[0] == 0
