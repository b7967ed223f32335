"""Backpressure, wake-ups and idle runs of the lane."""

from __future__ import annotations

import ctypes
import time

from ringline.pipeline._pipeline import lib
from ringline.shm.clock import ticks_per_second

from .lane_harness import DROP, Harness


def test_a_full_tx_ring_holds_the_worker_up_and_loses_nothing(harness: Harness) -> None:
    harness.ports[1].tx_room = 5
    harness.ports[0].arrive(0, 30)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.answer(1)
    harness.run_pass(3)
    assert len(harness.ports[1].sent) == 5
    assert harness.problems() == []
    harness.ports[1].tx_room = 100
    harness.run_pass(3)
    assert len(harness.ports[1].sent) == 30
    sent = [buffer for buffer, _, _ in harness.ports[1].sent]
    assert len(set(sent)) == 30


def test_a_backlog_on_an_out_ring_is_drained(harness: Harness) -> None:
    """A pass takes back up to 128 packets of a queue; it receives up to 64 from each port."""
    harness.ports[0].arrive(0, 130)
    harness.run_pass(3)
    worker = harness.workers[0]
    while worker.pop():
        pass
    worker.answer(DROP)
    harness.run_pass()
    assert harness.books.slots[0].returned == 128
    harness.run_pass()
    assert harness.books.slots[0].returned == 130


def test_a_worker_gets_no_more_than_its_ring_has_room_for() -> None:
    with Harness(buffers=1600) as harness:
        harness.ports[0].arrive(0, 2000)
        harness.run_pass(30)
        ring = harness.workers[0].in_
        assert ring.producer == lib.RL_RING_CAPACITY
        assert harness.queue(0, 0).rx_waits > 0
        order = [entry.buffer for entry in ring.entries]
        assert len(set(order)) == lib.RL_RING_CAPACITY
        harness.workers[0].pop(10)
        harness.run_pass(3)
        assert ring.producer == lib.RL_RING_CAPACITY + 10
        assert [entry.buffer for entry in ring.entries][10:] == order[10:]


def test_a_sleeping_worker_is_woken_but_not_more_often_than_the_interval_allows(
    harness: Harness,
) -> None:
    lane, worker, slot = harness.lane._lane, harness.workers[0], harness.books.slots[0]
    lane.wake_interval = int(0.2 * ticks_per_second())
    for arrivals, wakeups in ((1, 1), (1, 1), (0, 1)):  # later ones wait for the interval
        worker.in_.sleeping = 1
        harness.ports[0].arrive(0, arrivals)
        harness.run_pass()
        assert slot.wakeups == wakeups
    time.sleep(0.2)
    harness.run_pass()  # sends the wake-up that was held back, without new packets
    assert (slot.wakeups, worker.in_.sleeping) == (2, 0)


def test_a_run_that_moves_nothing_has_made_a_whole_pass(harness: Harness) -> None:
    """Even while the supervisor asks for attention: a drain ends when a run moves nothing."""
    harness.ports[0].arrive(0, 10)
    harness.books.request += 1
    assert harness.lane.run(1.0) == 10
    assert harness.queue(0, 0).rx_packets == 10
    assert harness.lane.run(0.0) == 0


def test_sleeps_are_not_stretched_by_the_kernel(harness: Harness) -> None:
    harness.lane.run(0.001)
    get_timer_slack = 30  # PR_GET_TIMERSLACK of prctl(2), in ns
    assert ctypes.CDLL(None).prctl(get_timer_slack, 0, 0, 0, 0) == 1
