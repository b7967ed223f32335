"""The balance reports every wrong counter and every buffer that is lost or held twice."""

from __future__ import annotations

import pytest

from ringline.shm.clock import ticks

from .lane_harness import Harness


@pytest.mark.parametrize(
    ("counter", "residual"),
    [
        ("queues[0].rx_packets", "packets_residual[0] = 1"),
        ("queues[0].drop_plugin", "packets_residual[0] = -1"),
        ("queues[0].drop_driver_lost", "packets_residual[0] = -1"),
        ("slots[1].pushed", "worker_residual[1] = 1"),
        ("slots[0].blanks_granted", "blanks_residual = 1"),
    ],
)
def test_a_count_that_is_wrong_is_reported(counter: str, residual: str) -> None:
    with Harness(blanks=2) as harness:
        harness.ports[0].arrive(0, 3)
        harness.run_pass(2)
        block, name = counter.split("].")
        array, index = block.split("[")
        counters = getattr(harness.books, array)[int(index)]
        right = getattr(counters, name)
        setattr(counters, name, right + 1)
        assert harness.problems() == [residual]
        setattr(counters, name, right)


def test_a_buffer_that_is_held_twice_or_not_at_all_is_reported() -> None:
    with Harness() as harness:
        memory = harness.lane._lane.memory
        first = memory.free[0]
        memory.free[0] = memory.free[1]
        assert harness.problems() == ["scan_missing = 1", "scan_duplicates = 1"]
        memory.free_count -= 1
        assert "buffers_residual = 1" in harness.problems()
        memory.free[0] = first
        memory.free_count += 1


def test_every_buffer_that_is_missing_or_held_twice_is_counted() -> None:
    with Harness() as harness:
        free = harness.lane._lane.memory.free
        right = list(free[0:5])
        free[0], free[2], free[3] = free[1], free[4], free[4]
        assert harness.problems() == ["scan_missing = 3", "scan_duplicates = 2"]
        for place, buffer in enumerate(right):
            free[place] = buffer


def test_a_balance_says_when_it_was_counted_and_whether_the_scan_was_complete() -> None:
    with Harness() as harness:
        for complete in (False, True):
            before = ticks()
            harness.lane.balance(complete=complete)
            assert before <= harness.books.balance.when <= ticks()
            assert harness.books.balance.complete == complete
