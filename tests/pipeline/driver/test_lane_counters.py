"""The counters of the lane: exact numbers of packets, bytes, bursts and waits, and of ticks.

The lane writes the time of each pass into its own fields, so times are compared exactly too.
"""

from __future__ import annotations

import time

import pytest

from ringline.pipeline._pipeline import ffi, lib

from .lane_harness import DROP, Harness

NEVER = 1 << 62  # ticks


def test_packets_bytes_and_bursts_are_counted_once(harness: Harness) -> None:
    for length in (60, 100, 1518):
        harness.ports[0].arrive(0, 1, length)
    harness.run_pass()
    harness.ports[0].arrive(0, 1, 64)
    harness.run_pass(2)
    count = harness.queue(0, 0)
    assert (count.rx_packets, count.rx_bytes, count.rx_bursts) == (4, 60 + 100 + 1518 + 64, 2)
    slot = harness.books.slots[0]
    assert (slot.pushed, slot.returned) == (4, 0)
    harness.workers[0].pop()
    harness.workers[0].answer(1, 3)
    harness.run_pass()
    harness.workers[0].answer(1, 1)
    harness.run_pass(2)
    sender = harness.queue(1, 0)
    assert (sender.tx_packets, sender.tx_bursts, sender.tx_waits) == (4, 2, 0)
    assert (slot.pushed, slot.returned) == (4, 4)
    assert (count.rx_waits, count.tx_bursts) == (0, 0)


def test_a_burst_that_sends_nothing_is_a_wait_and_no_burst(harness: Harness) -> None:
    harness.ports[1].tx_room = 2
    harness.ports[0].arrive(0, 3)
    harness.run_pass()
    harness.workers[0].pop()
    harness.workers[0].answer(1)
    harness.run_pass()
    sender = harness.queue(1, 0)
    assert (sender.tx_bursts, sender.tx_waits) == (1, 1), "two of three were sent"
    harness.run_pass(2)
    assert (sender.tx_bursts, sender.tx_waits) == (1, 3)
    assert harness.books.slots[0].returned == 2
    harness.ports[1].tx_room = 1
    harness.run_pass()
    assert (sender.tx_bursts, sender.tx_waits) == (2, 3)


def test_each_receive_that_finds_no_room_is_a_wait() -> None:
    with Harness(buffers=1600) as harness:
        harness.ports[0].arrive(0, 2000)
        harness.run_pass(lib.RL_RING_CAPACITY // lib.RL_BATCH_MAX)
        count = harness.queue(0, 0)
        assert count.rx_waits == 0
        harness.run_pass(3)
        assert count.rx_waits == 3
        assert count.rx_packets == lib.RL_RING_CAPACITY
        assert harness.queue(1, 0).rx_waits == 1 + 3, "the other port waits for the same ring"


def test_the_time_of_a_pass_is_busy_when_it_moved_packets_and_idle_otherwise(
    harness: Harness,
) -> None:
    lane, count = harness.lane._lane, harness.books.lane
    harness.run_pass()
    first = lane.pass_at
    assert (count.busy_ticks, count.idle_ticks, count.model_ticks) == (0, 0, 0)
    harness.ports[0].arrive(0, 1)
    harness.run_pass()  # ends the empty pass, and moves a packet
    second = lane.pass_at
    assert (count.busy_ticks, count.idle_ticks) == (0, second - first)
    assert harness.lane.moving
    harness.run_pass()
    third = lane.pass_at
    assert (count.busy_ticks, count.idle_ticks) == (third - second, second - first)
    assert not harness.lane.moving
    assert (count.passes, count.heartbeat) == (3, third)
    assert lane.progress_at == second


def test_the_time_of_a_model_is_neither_busy_nor_idle(harness: Harness) -> None:
    lane, count = harness.lane._lane, harness.books.lane
    work = 0

    def step(_context: object) -> int:
        time.sleep(0.002)
        return work

    callback = ffi.callback("uint32_t(void *)")(step)
    lane.steps[0].step, lane.step_count = callback, 1
    harness.run_pass()
    first, modelled = lane.pass_at, lane.modelled_for
    assert modelled > 0
    assert (count.model_ticks, count.heartbeat) == (modelled, first + modelled)
    assert lane.progress_at == 0, "the model did nothing"
    work = 1
    harness.run_pass()
    assert (count.busy_ticks, count.idle_ticks) == (0, lane.pass_at - first - modelled)
    assert count.model_ticks == modelled + lane.modelled_for
    assert lane.progress_at == count.heartbeat == lane.pass_at + lane.modelled_for
    lane.step_count = 0
    harness.run_pass()
    assert lane.modelled_for == 0


@pytest.mark.parametrize("scale", [1, 1 << 20, NEVER], ids=["longest", "measured", "shortest"])
def test_the_latency_of_one_packet_at_a_time_is_counted(harness: Harness, scale: int) -> None:
    """`scale`: how many ticks, times 2^16, are 64 ns. It moves the sample between the buckets."""
    lane, slot = harness.lane._lane, harness.books.slots[0]
    lane.ticks_per_64ns_shifted = scale
    harness.ports[0].arrive(0, 2)
    harness.run_pass()
    received = lane.pass_at
    harness.ports[0].arrive(0, 1)
    harness.run_pass()  # the first packet is still being measured
    harness.workers[0].pop()
    harness.workers[0].answer(1)
    harness.run_pass()
    ticks = lane.pass_at - received
    assert slot.latency_ticks == ticks
    units = (ticks << 16) // scale
    bucket = min(units.bit_length(), lib.RL_LATENCY_BUCKETS - 1)
    assert list(slot.latency) == [int(i == bucket) for i in range(lib.RL_LATENCY_BUCKETS)]
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    harness.workers[0].pop()
    harness.workers[0].answer(DROP)
    harness.run_pass()
    assert sum(slot.latency) == 2, "the next packet is measured too"


def idle_since_ever(harness: Harness) -> None:
    """Make the last progress long ago, and each pause and sleep as short as can be."""
    lane = harness.lane._lane
    lane.progress_at, lane.pause_after, lane.sleep_after = 1, 0, 0
    lane.deep_after, lane.sleep_ns, lane.deep_sleep_ns = NEVER, 1, 1


def test_the_lane_sleeps_from_the_64th_empty_pass_on(harness: Harness) -> None:
    idle_since_ever(harness)
    for _ in range(63):
        harness.lane.run(0.0)
    assert harness.books.lane.sleeps == 0
    harness.lane.run(0.0)
    harness.lane.run(0.0)
    assert harness.books.lane.sleeps == 2
    harness.ports[0].arrive(0, 1)
    harness.lane.run(0.0)
    assert harness.lane._lane.empty_passes == 0
    harness.lane._lane.progress_at = 1
    harness.lane.run(0.0)
    assert harness.books.lane.sleeps == 2, "the count begins again"


@pytest.mark.parametrize("field", ["adaptive", "pause_after", "sleep_after"])
def test_the_lane_does_not_sleep_before_its_time(harness: Harness, field: str) -> None:
    idle_since_ever(harness)
    setattr(harness.lane._lane, field, 0 if field == "adaptive" else NEVER)
    for _ in range(70):
        harness.lane.run(0.0)
    assert harness.books.lane.sleeps == 0
    assert (harness.lane._lane.empty_passes == 0) == (field != "sleep_after")


def shortest_sleep(harness: Harness, tries: int = 1) -> float:
    """Seconds of the shortest of some runs that sleep once."""
    harness.lane._lane.empty_passes = 1000
    took = []
    for _ in range(tries):
        slept = harness.books.lane.sleeps
        began = time.monotonic()
        harness.lane.run(0.0)
        took.append(time.monotonic() - began)
        assert harness.books.lane.sleeps == slept + 1
    return min(took)


def test_a_deep_sleep_comes_after_its_time_and_only_if_it_is_longer(harness: Harness) -> None:
    idle_since_ever(harness)
    lane = harness.lane._lane
    lane.sleep_ns, lane.deep_sleep_ns = 1, 200_000_000
    assert shortest_sleep(harness, tries=3) < 0.2  # one must not be delayed by the machine
    lane.deep_after = 0
    assert shortest_sleep(harness) >= 0.2
    lane.sleep_ns, lane.deep_sleep_ns = 200_000_000, 1
    assert shortest_sleep(harness) >= 0.2
