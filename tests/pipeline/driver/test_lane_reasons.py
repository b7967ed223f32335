"""Packets that a plugin drops for a reason of its own: the lane counts each reason alone."""

from __future__ import annotations

import pytest

from ringline.shm import counters

from .lane_harness import DROP, Harness

FIRST, LAST = 128, 159


def test_each_reason_has_its_own_counter(harness: Harness) -> None:
    harness.ports[0].arrive(0, 6)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    for verdict in (FIRST, FIRST, LAST, DROP, FIRST + 5, 1):
        worker.answer(verdict, 1)
    harness.run_pass(2)
    queue = harness.queue(0, 0)
    assert {i: n for i, n in enumerate(queue.drop_named) if n} == {0: 2, 31: 1, 5: 1}
    assert (queue.drop_plugin, queue.drop_plugin_error, queue.drop_bad_reference) == (1, 0, 0)
    assert harness.books.slots[0].bad_reference == 0
    assert len(harness.ports[1].sent) == 1
    # On leaving, the harness checks that the books balance: named reasons are in the sum.


@pytest.mark.parametrize("verdict", [FIRST - 1, LAST + 1, 16, 253])
def test_a_verdict_beside_the_reasons_is_refused(harness: Harness, verdict: int) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    harness.workers[0].pop()
    harness.workers[0].answer(verdict)
    harness.run_pass(2)
    assert counters.read(harness.books.slots[0].refusals)["no_port"] == 1
    assert not any(harness.queue(0, 0).drop_named)


def test_a_blank_with_a_reason_is_returned() -> None:
    with Harness(blanks=4) as harness:
        harness.run_pass(2)
        worker = harness.workers[0]
        assert worker.pop() == 4
        worker.answer(FIRST)
        harness.run_pass(2)
        assert harness.books.slots[0].blanks_returned == 4
        assert not any(harness.queue(0, 0).drop_named)
