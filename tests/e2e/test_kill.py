"""Killing any process at any moment: nothing is left, and the books balance.

By the command line alone. Moments are drawn from a seed that a failure prints;
RINGLINE_PROOF=1 draws many more.
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

from .running import (
    SECONDS,
    SEED,
    Running,
    alive,
    check_counts,
    drops,
    kill,
    kill_and_see_successor,
    restarts,
    see_end,
    until,
)

pytestmark = pytest.mark.slow

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
TIMES = 40 if PROOF else 2  # how often each kind of death is tried
BATCH = 64  # a dead worker costs at most so many packets


@pytest.mark.parametrize("process", [False, True], ids=["stepped card", "card process"])
def test_a_killed_worker_costs_at_most_a_batch(
    start: Callable[..., Running], process: bool
) -> None:
    draw = random.Random(SEED)
    run = start(process=process)
    run.serving()
    for _ in range(TIMES):
        time.sleep(draw.random() * 0.2)
        kill_and_see_successor(run, 1)
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert restarts(report) == [0, TIMES]
    lost = drops(report, "worker_lost")
    assert lost[0] == 0, "another queue paid for it"
    assert lost[1] <= BATCH * TIMES
    port = report["ports"]["wan"]
    assert sum(port["drops"].values()) == lost[1]
    assert sum(port["card_drops"].values()) == 0, "closed loop: nothing is lost for lack of time"
    assert port["wire"]["delivered"] == port["received"]["packets"]
    assert port["wire"]["transmitted"] == port["forwarded"]
    assert run.left() == []


def test_killing_workers_again_and_again_leaves_the_books_right(
    start: Callable[..., Running],
) -> None:
    """Without waiting for successors: they die in every phase of their lives."""
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


def test_a_stopped_worker_is_replaced(start: Callable[..., Running]) -> None:
    """SIGSTOP: it lives, and does nothing more. ABRT does not reach it, KILL does."""
    run = start()
    kill_and_see_successor(run, 0, signal.SIGSTOP)
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert "gave no sign of life" in run.output
    assert drops(report, "worker_lost")[0] <= BATCH
    assert drops(report, "worker_lost")[1] == 0
    assert run.left() == []


def test_a_worker_that_breaks_an_index_of_its_rings_is_replaced(
    start: Callable[..., Running],
) -> None:
    """The driver does not poll it any more, and its heart beats on: somebody has to end it."""
    run = start()
    generation = run.serving()["workers"][0]["generation"]
    rings = Path(f"/dev/shm/ringline.{run.name}.rings.0.{generation}")
    producer = ffi.offsetof("struct rl_rings_segment", "out")
    with rings.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:

        def ended() -> bool:
            for _ in range(1000):  # the worker writes it, too
                memory[producer : producer + 4] = b"\0\0\0\x80"
            return not rings.exists()

        until(ended, "the end of the worker whose rings these are")
    after = run.serving()["ports"]["wan"]["queues"][0]["rx_packets"]
    until(
        lambda: run.status()["ports"]["wan"]["queues"][0]["rx_packets"] > after,
        "the first packet for its successor",
    )
    code, report = run.end()
    assert code == 0, run.output
    check_counts(report)
    assert restarts(report) == [1, 0]
    assert "broke an index of its rings" in run.output
    assert run.left() == []


def counters_of(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_counters_never_step_back_across_a_restart(start: Callable[..., Running]) -> None:
    draw = random.Random(SEED + 2)
    run = start()
    url = run.serving()["metrics"]
    before: dict[Any, float] = {}
    for turn in range(20 * TIMES):
        now = counters_of(url)
        back = {key: (was, now.get(key)) for key, was in before.items() if now.get(key, 0) < was}
        assert back == {}, f"seed {SEED}, scrape {turn}"
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
    start: Callable[..., Running], process: bool, number: signal.Signals
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
        why = "was ended by SIGKILL" if number is signal.SIGKILL else "gave no sign of life"
        assert f"the driver {why}" in run.output
        check_counts(report)
        port = report["ports"]["wan"]
        assert port["in_flight"] == 0
        if process:
            assert port["wire"]["transmitted"] >= port["forwarded"]
        assert not any(alive(pid) for pid in pids)
        assert run.left() == []


def test_the_death_of_a_card_process_ends_the_run(start: Callable[..., Running]) -> None:
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
    start: Callable[..., Running], process: bool
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
        if turn % 2 == 0:  # the next start need not wait for them
            see_end(pids)
        run.start()
        run.serving()
        code, report = run.end()
        assert code == 0, run.output
        check_counts(report)
        see_end(pids)
        assert run.left() == []
        run.start()


@pytest.mark.parametrize("role", ["driver", "worker", "card"])
def test_a_stopped_child_does_not_outlive_its_supervisor(
    start: Callable[..., Running], role: str
) -> None:
    run = start(process=True)
    run.serving()
    pids = [pid for pid, _ in run.children()]
    kill(run.first(role), signal.SIGSTOP)
    run.process.kill()
    run.process.wait()
    see_end(pids)


@pytest.mark.parametrize("role", ["driver", "worker", "card", "supervisor"])
def test_a_death_while_it_starts_leaves_nothing(start: Callable[..., Running], role: str) -> None:
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
            see_end(pids)
            run.start("--for", "0.1")
            code, report = run.ended()
            assert code == 0, run.output
            check_counts(report)
        else:
            kill(pid)
            time.sleep(0.05)
            code, report = run.end()
            # A signal that comes when Python has begun or finished its own part is not ours.
            assert code in (0, 2, 4, -signal.SIGTERM), run.output
            if report:
                check_counts(report)
        assert not any(alive(pid) for pid in pids)
        assert run.left() == []
