"""Killing any process at any moment: nothing is left, and the books balance.

By the command line only. The moments are random; a failure prints the seed, and
RINGLINE_SEED sets it. RINGLINE_PROOF=1 tries many more.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ringline.shm._shm import ffi

from .run_harness import (
    SEED,
    TIMEOUT,
    RunHarness,
    alive,
    check_counts,
    drops,
    kill,
    kill_and_wait_for_successor,
    restarts,
    wait_for_end,
    wait_until,
)

pytestmark = pytest.mark.slow

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
TIMES = 40 if PROOF else 2  # repetitions of each kind of death
BATCH = 64  # packets that a dead worker loses at most


@pytest.mark.parametrize("process", [False, True], ids=["stepped card", "card process"])
def test_a_killed_worker_costs_at_most_a_batch(
    start: Callable[..., RunHarness], process: bool
) -> None:
    draw = random.Random(SEED)
    run = start(process=process)
    run.serving()
    for _ in range(TIMES):
        time.sleep(draw.random() * 0.2)
        kill_and_wait_for_successor(run, 1)
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert restarts(report) == [0, TIMES]
    lost = drops(report, "worker_lost")
    assert lost[0] == 0, "another queue lost packets"
    assert lost[1] <= BATCH * TIMES
    port = report["ports"]["wan"]
    assert sum(port["drops"].values()) == lost[1]
    assert sum(port["card_drops"].values()) == 0, "without a rate limit the card drops nothing"
    assert port["wire"]["delivered"] == port["received"]["packets"]
    assert port["wire"]["transmitted"] == port["forwarded"]
    assert run.left() == []


def test_killing_workers_again_and_again_leaves_the_books_right(
    start: Callable[..., RunHarness],
) -> None:
    """Without waiting for successors: workers die in every phase."""
    draw = random.Random(SEED + 1)
    run = start()
    run.serving()
    for _ in range(10 * TIMES):
        time.sleep(draw.random() * 0.05)
        for pid in run.pids("worker"):
            if draw.random() < 0.5:
                kill(pid)
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    for queue, restarted in enumerate(restarts(report)):
        assert drops(report, "worker_lost")[queue] <= BATCH * restarted
    assert run.left() == []


def test_a_stopped_worker_is_replaced(start: Callable[..., RunHarness]) -> None:
    """A stopped worker (SIGSTOP) exists but does nothing. SIGABRT has no effect; SIGKILL has."""
    run = start()
    kill_and_wait_for_successor(run, 0, signal.SIGSTOP)
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert "made no progress" in run.output
    assert drops(report, "worker_lost")[0] <= BATCH
    assert drops(report, "worker_lost")[1] == 0
    assert run.left() == []


def test_a_worker_that_breaks_an_index_of_its_rings_is_replaced(
    start: Callable[..., RunHarness],
) -> None:
    """The driver stops polling it, but its heartbeat continues: the supervisor must end it."""
    run = start()
    generation = run.serving()["workers"][0]["generation"]
    rings = Path(f"/dev/shm/ringline.{run.name}.rings.0.{generation}")
    producer = ffi.offsetof("struct rl_rings_segment", "out")
    with rings.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:

        def ended() -> bool:
            for _ in range(1000):  # the worker writes the index, too
                memory[producer : producer + 4] = b"\0\0\0\x80"
            return not rings.exists()

        wait_until(ended, "the end of the worker with these rings")
    after = run.serving()["ports"]["wan"]["queues"][0]["rx_packets"]
    wait_until(
        lambda: run.answer()["ports"]["wan"]["queues"][0]["rx_packets"] > after,
        "the first packet for its successor",
    )
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert restarts(report) == [1, 0]
    assert "published an invalid ring index" in run.output
    assert run.left() == []


def counters_of(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if not sample.name.endswith("_created")
        # The CPU time of a process begins anew with the next process.
        and sample.name != "ringline_process_cpu_seconds_total"
    }


def test_counters_never_decrease_across_a_restart(start: Callable[..., RunHarness]) -> None:
    draw = random.Random(SEED + 2)
    run = start()
    url = run.serving()["metrics"]
    before: dict[Any, float] = {}
    for turn in range(20 * TIMES):
        now = counters_of(url)
        decreased = {
            key: (was, now.get(key)) for key, was in before.items() if now.get(key, 0) < was
        }
        assert decreased == {}, f"seed {SEED}, scrape {turn}"
        before = now
        if turn % 5 == 2:
            kill(run.first("worker"))
        time.sleep(draw.random() * 0.05)
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert sum(restarts(report)) > 0
    received = sum(
        value
        for (name, _), value in before.items()
        if name == "ringline_port_received_packets_total"
    )
    assert 0 < received <= report["ports"]["wan"]["received"]["packets"]


@pytest.mark.parametrize("process", [False, True], ids=["stepped card", "card process"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_death_of_the_driver_ends_the_run_with_balanced_books(
    start: Callable[..., RunHarness], process: bool, number: signal.Signals
) -> None:
    draw = random.Random(SEED + 3)
    for _ in range(TIMES if number is signal.SIGKILL else 1):
        run = start(process=process)
        run.serving()
        time.sleep(draw.random() * 0.2)
        pids = [pid for pid, _ in run.children()]
        (driver,) = run.pids("driver")
        kill(driver, number)
        code, report = run.ended()
        assert code == 4, run.output
        why = "was ended by SIGKILL" if number is signal.SIGKILL else "made no progress"
        assert f"the driver {why}" in run.output
        check_counts(report)
        port = report["ports"]["wan"]
        assert port["in_flight"] == 0
        if process:
            assert port["wire"]["transmitted"] >= port["forwarded"]
        assert not any(alive(pid) for pid in pids)
        assert run.left() == []


def test_the_death_of_a_card_process_ends_the_run(start: Callable[..., RunHarness]) -> None:
    draw = random.Random(SEED + 4)
    for _ in range(TIMES):
        run = start(process=True)
        run.serving()
        time.sleep(draw.random() * 0.2)
        pids = [pid for pid, _ in run.children()]
        (card,) = run.pids("card")
        kill(card)
        code, report = run.ended()
        assert code == 4, run.output
        assert "card of port wan was ended by SIGKILL" in run.output
        check_counts(report)
        assert not any(alive(pid) for pid in pids)
        assert run.left() == []


@pytest.mark.parametrize("process", [False, True], ids=["stepped card", "card process"])
def test_when_the_supervisor_is_killed_its_children_end_and_the_next_start_clears_up(
    start: Callable[..., RunHarness], process: bool
) -> None:
    draw = random.Random(SEED + 5)
    run = start(process=process)
    for turn in range(TIMES):
        run.serving()
        time.sleep(draw.random() * 0.2)
        pids = [pid for pid, _ in run.children()]
        assert len(pids) == 3 + process
        run.process.kill()
        run.process.wait()
        if turn % 2 == 0:  # odd turns start again while the children may still run
            wait_for_end(pids)
        run.start()
        run.serving()
        code, report = run.end()
        assert code == 0, run.output
        check_counts(report)
        wait_for_end(pids)
        assert run.left() == []
        run.start()


@pytest.mark.parametrize("role", ["driver", "worker", "card"])
def test_a_stopped_child_does_not_outlive_its_supervisor(
    start: Callable[..., RunHarness], role: str
) -> None:
    run = start(process=True)
    run.serving()
    pids = [pid for pid, _ in run.children()]
    kill(run.first(role), signal.SIGSTOP)
    run.process.kill()
    run.process.wait()
    wait_for_end(pids)


@pytest.mark.parametrize("role", ["driver", "worker", "card", "supervisor"])
def test_a_death_while_it_starts_leaves_nothing(
    start: Callable[..., RunHarness], role: str
) -> None:
    draw = random.Random(SEED + 6)
    for _ in range(TIMES):
        run = start(process=role == "card")
        wanted = "driver" if role == "supervisor" else role
        pid = run.first(wanted)
        time.sleep(draw.random() * 0.3)
        pids = [child for child, _ in run.children()]
        if role == "supervisor":
            run.process.kill()
            run.process.wait()
            wait_for_end(pids)
            run.start("--for", "0.1")
            code, report = run.ended()
            assert code == 0, run.output
            check_counts(report)
        else:
            kill(pid)
            time.sleep(0.05)
            code, report = run.end()
            # -SIGTERM: the signal came while Python itself started or ended.
            assert code in (0, 2, 4, -signal.SIGTERM), run.output
            if report:
                check_counts(report)
        assert not any(alive(pid) for pid in pids)
        assert run.left() == []
