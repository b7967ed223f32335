"""Packets leave by their verdict and are counted on the queue that received them."""

from __future__ import annotations

import time

import pytest

from ringline.shm.clock import ticks_per_second

from .lane_harness import DROP, ERROR, QUEUES, Harness


def test_packets_go_to_the_port_that_the_plugin_named(harness: Harness) -> None:
    harness.ports[0].arrive(0, 10)
    harness.run_pass()
    worker = harness.workers[0]
    assert worker.pop() == 10
    worker.answer(1, 7)
    worker.answer(DROP, 2)
    worker.answer(ERROR)
    harness.run_pass(2)
    assert len(harness.ports[1].sent) == 7
    assert not harness.ports[0].sent
    count = harness.queue(0, 0)
    assert (count.rx_packets, count.transmitted) == (10, 7)
    assert (count.drop_plugin, count.drop_plugin_error) == (2, 1)
    assert harness.queue(1, 0).tx_packets == 7
    assert harness.lane.in_flight == 0


def test_a_queue_without_a_worker_slot_is_not_polled() -> None:
    with Harness(queues=(QUEUES + 1, QUEUES)) as harness:
        harness.ports[0].arrive(QUEUES, 3)
        harness.run_pass()
        assert len(harness.ports[0].arrived[QUEUES]) == 3
        assert harness.queue(0, QUEUES).rx_packets == 0


def test_a_port_is_asked_only_for_queues_that_it_has() -> None:
    with Harness(queues=(QUEUES, 1)) as harness:  # on leaving, it asks both ports
        harness.ports[0].arrive(1, 3)
        harness.run_pass()
        harness.workers[1].pop()
        harness.workers[1].answer(1)
        harness.run_pass(2)
        assert (harness.queue(1, 0).tx_packets, harness.queue(0, 1).transmitted) == (3, 3)


def test_each_packet_is_counted_on_the_port_that_received_it(harness: Harness) -> None:
    harness.ports[0].arrive(0, 3)
    harness.ports[1].arrive(0, 4)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.held = [worker.held[i] for i in (0, 3, 1, 4, 2, 5, 6)]  # ports alternate
    worker.answer(DROP)
    harness.run_pass()
    assert [harness.queue(port, 0).drop_plugin for port in (0, 1)] == [3, 4]


def test_packets_for_a_port_whose_link_is_down_are_dropped_by_that_name(harness: Harness) -> None:
    harness.ports[1].c_port.ready = 0
    harness.ports[0].arrive(0, 3)
    harness.run_pass()
    harness.workers[0].pop()
    harness.workers[0].answer(1)
    harness.run_pass(2)
    assert harness.queue(0, 0).drop_tx_down == 3


@pytest.mark.parametrize("how", ["refused", "lost"])
def test_a_packet_that_was_not_answered_is_no_sample_of_the_latency(
    harness: Harness, how: str
) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    if how == "refused":
        worker.answer(99)
        harness.run_pass()
    else:
        harness.renew(0)
        worker = harness.workers[0]
    pause = 0.2
    time.sleep(pause)
    harness.ports[0].arrive(0, 1)  # into the same buffer: it was freed last
    harness.run_pass()
    worker.pop()
    worker.answer(1)
    harness.run_pass()
    slot = harness.books.slots[0]
    assert sum(slot.latency) == 1
    assert slot.latency_ticks < pause * ticks_per_second()
