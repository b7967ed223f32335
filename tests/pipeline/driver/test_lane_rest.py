"""Empty queues rest while the lane has others to serve."""

from __future__ import annotations

import os

from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.supervisor.instance import create_lane
from ringline.shm.clock import ticks_per_second
from ringline.shm.packets import PacketMemory

from .lane_harness import Harness

QUIET = 100  # passes: more than a queue must be empty before it rests
LONG = 1 << 60  # ticks: longer than a test


def keep_busy(harness: Harness, queue: int, passes: int) -> None:
    """Run passes in which a packet of `queue` moves."""
    worker = harness.workers[queue]
    assert worker is not None
    for _ in range(passes):
        harness.ports[0].arrive(queue, 1)
        harness.run_pass()
        worker.pop()
        worker.answer(0)


def received(harness: Harness, queue: int) -> int:
    count: int = harness.queue(0, queue).rx_packets
    return count


def test_an_empty_queue_rests_while_another_is_busy(harness: Harness) -> None:
    harness.lane._lane.rest = LONG
    keep_busy(harness, 0, QUIET)
    harness.ports[0].arrive(1, 1)
    keep_busy(harness, 0, 10)
    assert received(harness, 1) == 0
    assert received(harness, 0) == QUIET + 10


def test_a_queue_rests_no_longer_than_the_lane_may_sleep(harness: Harness) -> None:
    lane = harness.lane._lane
    assert 0 < lane.rest <= lane.sleep_ns * 1e-9 * ticks_per_second()
    keep_busy(harness, 0, QUIET)
    harness.ports[0].arrive(1, 1)
    for _ in range(10_000):  # each takes longer than a microsecond
        if received(harness, 1) == 1:
            break
        keep_busy(harness, 0, 1)
    assert received(harness, 1) == 1


def test_no_queue_rests_after_a_pass_without_packets(harness: Harness) -> None:
    harness.lane._lane.rest = LONG
    keep_busy(harness, 0, QUIET)
    harness.run_pass(4)  # what is on TX rings ends, then nothing moves
    harness.ports[0].arrive(1, 1)
    harness.run_pass()
    assert received(harness, 1) == 1


def test_a_run_serves_every_queue_at_least_once(harness: Harness) -> None:
    """Its result 0 means that nothing was left to move, and the driver may be finished."""
    harness.lane._lane.rest = LONG
    keep_busy(harness, 0, QUIET)
    harness.ports[0].arrive(1, 1)
    assert harness.lane.run(0.0) > 0
    assert received(harness, 1) == 1


def test_a_queue_with_a_packet_now_and_then_does_not_rest(harness: Harness) -> None:
    harness.lane._lane.rest = LONG
    worker = harness.workers[1]
    assert worker is not None
    for n in range(5):
        keep_busy(harness, 0, 50)
        harness.ports[0].arrive(1, 1)
        keep_busy(harness, 0, 1)
        assert received(harness, 1) == n + 1
        worker.pop()
        worker.answer(0)


def test_a_lane_that_spins_lets_no_queue_rest() -> None:
    instance = f"t{os.getpid()}-rest"
    with (
        PacketMemory.create(instance, 64, hugepages="off") as packets,
        create_lane(instance, 64) as books,
    ):
        addresses = packets.device_addresses("offset")
        spinning = Lane(books, packets, addresses, 2, Idle(adaptive=False))
        assert spinning._lane.rest == 0
        spinning.close()
