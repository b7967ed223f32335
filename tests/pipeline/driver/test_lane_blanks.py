"""Blanks: granted while receiving, counted apart from packets, restored for a successor."""

from __future__ import annotations

from ringline.pipeline._pipeline import lib

from .lane_harness import DROP, QUEUES, Harness


def test_blanks_are_granted_sent_returned_and_lost_in_books_of_their_own() -> None:
    with Harness(blanks=8) as harness:
        harness.run_pass()
        worker = harness.workers[0]
        assert worker.pop() == 8
        assert harness.lane.in_flight == 0, "a blank with a worker is not in flight"
        worker.answer(1, 3)
        worker.answer(DROP, 2)
        harness.run_pass(2)
        slot = harness.books.slots[0]
        assert (slot.blanks_transmitted, slot.blanks_returned) == (3, 2)
        assert len(harness.ports[1].sent) == 3
        harness.renew(0)
        assert slot.blanks_lost == 3
        assert harness.queue(0, 0).rx_packets == 0


def test_blanks_wait_for_free_buffers() -> None:
    with Harness(blanks=8, buffers=12) as harness:
        harness.run_pass(3)
        assert [slot.blanks_granted for slot in harness.books.slots[0:QUEUES]] == [8, 4]
        assert harness.problems() == []
        harness.workers[0].pop()
        harness.workers[0].answer(DROP, 1)
        harness.run_pass(2)
        assert sum(slot.blanks_granted for slot in harness.books.slots[0:QUEUES]) == 13


def test_no_blanks_are_granted_while_nothing_is_received() -> None:
    with Harness(blanks=8) as harness:
        harness.lane.receiving = False  # draining: blanks that a worker returns stay free
        harness.run_pass(2)
        assert harness.books.slots[0].blanks_granted == 0


def test_a_blank_that_was_not_popped_is_a_blank_again_for_the_successor() -> None:
    with Harness(blanks=2) as harness:
        harness.run_pass()
        for entry in harness.workers[0].in_.entries[0:2]:
            entry.flags, entry.offset, entry.port = 0, 9, 1  # the dead worker overwrote them
            entry.length = 60
        assert harness.renew(0).carried == 2
        successor = harness.workers[0]
        assert successor.pop() == 2
        for ref in successor.held:
            assert (ref["flags"], ref["offset"], ref["port"]) == (lib.RL_FLAG_BLANK, 192, 255)
            assert ref["length"] == 0
