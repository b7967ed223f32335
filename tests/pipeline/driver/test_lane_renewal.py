"""Settling a dead worker: complete packets are sent, unpopped ones go to the successor."""

from __future__ import annotations

import time

from ringline.pipeline._pipeline import ffi, lib
from ringline.shm.clock import ticks

from .lane_harness import QUEUES, Harness

NEVER = 1 << 62  # ticks


def test_settlement_sends_the_complete_frees_the_lost_and_carries_the_rest(
    harness: Harness,
) -> None:
    harness.ports[0].arrive(0, 200)
    harness.run_pass(4)
    worker = harness.workers[0]
    order = [worker.in_.entries[i].buffer for i in range(worker.in_.consumer, worker.in_.producer)]
    worker.pop(64)
    worker.answer(1, 10)
    settled = harness.renew(0)
    assert (settled.returned, settled.lost, settled.carried) == (10, 54, 136)
    assert harness.queue(0, 0).drop_worker_lost == 54
    slot = harness.books.slots[0]
    assert (slot.carried, slot.lost, slot.generation) == (136, 54, harness.generation)
    successor = harness.workers[0]
    assert successor.pop(1000) == 136
    assert [ref["buffer"] for ref in successor.held] == order[64:]
    assert all(ref["port"] == 0 for ref in successor.held)
    successor.answer(1)
    harness.run_pass(10)
    assert harness.lane.in_flight == 0


def test_a_worker_that_moved_more_than_its_rings_hold_is_settled_like_a_new_one(
    harness: Harness,
) -> None:
    for _ in range(2 * lib.RL_RING_CAPACITY // 60):
        harness.ports[0].arrive(0, 60)
        harness.run_pass()
        harness.workers[0].pop()
        harness.workers[0].answer(1)
        harness.run_pass()
    sent = len(harness.ports[1].sent)
    harness.ports[0].arrive(0, 60)
    harness.run_pass()
    harness.workers[0].pop(30)
    harness.workers[0].answer(1, 20)
    settled = harness.renew(0)
    assert (settled.returned, settled.carried, settled.lost) == (20, 30, 10)
    assert len(harness.ports[1].sent) == sent + 20
    assert harness.workers[0].pop() == 30


def test_a_full_ring_goes_to_the_successor() -> None:
    with Harness(buffers=1600) as harness:
        harness.ports[0].arrive(0, lib.RL_RING_CAPACITY)
        harness.run_pass(lib.RL_RING_CAPACITY // lib.RL_BATCH_MAX)
        settled = harness.renew(0)
        assert (settled.carried, settled.lost) == (lib.RL_RING_CAPACITY, 0)
        assert harness.workers[0].pop(2000) == lib.RL_RING_CAPACITY


def test_a_settlement_tries_again_only_while_references_wait_for_an_output(
    harness: Harness,
) -> None:
    steps, progress, began = 0, 0, ticks()
    lane = harness.lane._lane

    @ffi.callback("uint32_t(void *)")
    def step(_context: object) -> int:
        nonlocal steps, progress
        steps += 1
        if steps == 1:  # the second packet gets room late, and the third one a long time after it
            time.sleep(0.3)
            progress = ticks()
            harness.ports[1].tx_room = 1
        elif steps == 100:
            harness.ports[1].tx_room = 1
        else:  # more than the time since the progress, less than that since the beginning
            lane.deep_after = ticks() - progress + (progress - began) // 2
        return 0

    lane.steps[0].step, lane.step_count = step, 1
    harness.renew(0)
    assert steps == 0, "nothing was on `out`"
    harness.ports[0].arrive(0, 3)
    harness.run_pass()
    steps = 0
    harness.workers[0].pop()
    harness.workers[0].answer(1)
    harness.ports[1].tx_room = 1
    lane.deep_after = NEVER
    began = ticks()
    settled = harness.renew(0)
    lane.step_count = 0
    assert (settled.returned, settled.lost, steps) == (3, 0, 100)


def test_settlement_sends_by_the_queues_that_a_port_has() -> None:
    with Harness(queues=(QUEUES, 1)) as harness:
        harness.ports[0].arrive(1, 100)
        harness.run_pass(3)
        worker = harness.workers[1]
        worker.pop(100)
        worker.answer(1)
        harness.ports[1].tx_room, harness.ports[1].room_returns = 0, 5
        harness.lane._lane.deep_after = 0  # already over: only the number of tries limits the wait
        settled = harness.renew(1)
        assert (settled.returned, settled.lost) == (100, 0)
        harness.run_pass()
        assert harness.queue(1, 0).tx_packets == 100
        assert (harness.queue(1, 0).tx_waits > 0, harness.queue(1, 1).tx_waits) == (True, 0)


def test_a_child_left_behind_cannot_keep_settlement_going() -> None:
    with Harness(buffers=4000) as harness:
        worker = harness.workers[0]
        harness.ports[0].arrive(0, 2000)
        while len(worker.held) < 2000:
            harness.run_pass()
            worker.pop()

        class Child(list[tuple[int, int, int]]):
            """For each packet sent, writes 63 bad references and one good one to `out`."""

            def append(self, sent: tuple[int, int, int]) -> None:
                super().append(sent)
                for _ in range(lib.RL_BATCH_MAX - 1):
                    worker.push(buffer=0xFFFFFFFF)
                worker.answer(1, 1)

        harness.ports[1].sent = Child()
        worker.answer(1, 1)
        settled = harness.renew(0)
        assert settled.returned < 20
        assert harness.books.slots[0].bad_reference <= lib.RL_RING_CAPACITY


def test_settlement_takes_one_full_ring_and_nothing_that_is_written_behind_it() -> None:
    with Harness(buffers=4000) as harness:
        worker = harness.workers[0]
        harness.ports[0].arrive(0, 1500)
        while len(worker.held) < 1500:
            harness.run_pass()
            worker.pop()

        class Child(list[tuple[int, int, int]]):
            """Writes one more reference to `out` for each packet sent, when there is room."""

            def append(self, sent: tuple[int, int, int]) -> None:
                super().append(sent)
                worker.answer(1, 1)

        harness.ports[1].sent = Child()
        worker.answer(1, lib.RL_RING_CAPACITY)
        settled = harness.renew(0)
        assert settled.returned == lib.RL_RING_CAPACITY
        assert settled.lost == 1500 - lib.RL_RING_CAPACITY


def test_references_that_a_dead_worker_changed_are_not_trusted(harness: Harness) -> None:
    harness.ports[0].arrive(0, 20)
    harness.ports[0].arrive(1, 1)
    harness.run_pass()
    entries = harness.workers[0].in_.entries
    order = [entries[i].buffer for i in range(20)]
    entries[0].buffer = harness.workers[1].in_.entries[0].buffer  # held by the other worker
    entries[1].buffer = harness.lane._lane.memory.free[0]  # free
    entries[2].buffer = 0xFFFFFFFF
    entries[3].length = 5000
    entries[4].offset = 2239
    entries[5].buffer = order[6]  # repeated
    entries[7].port = 1  # wrong: port 0 received it
    entries[8].flags |= lib.RL_FLAG_BLANK  # wrong: it is a packet
    entries[9].flags |= lib.RL_FLAG_FIX_CHECKSUMS | lib.RL_FLAG_WIRE_LENGTH  # no port sets these
    of_port = lib.RL_FLAG_VLAN | lib.RL_FLAG_HASH | lib.RL_FLAG_L3_OK | lib.RL_FLAG_L4_OK
    of_port |= lib.RL_FLAG_CHECKSUM_BAD
    entries[10].flags = of_port
    settled = harness.renew(0)
    assert (settled.carried, settled.lost) == (14, 6)
    successor, other = harness.workers
    successor.pop()
    assert [ref["buffer"] for ref in successor.held] == order[6:]
    assert {ref["port"] for ref in successor.held} == {0}
    assert not any(ref["flags"] & ~of_port for ref in successor.held)
    assert successor.held[10 - 6]["flags"] == of_port
    other.pop()
    other.answer(1)
    harness.run_pass(2)
    assert len(harness.ports[1].sent) == 1


def test_packets_of_a_queue_without_a_worker_are_dropped_by_that_name(harness: Harness) -> None:
    harness.ports[0].arrive(1, 100)
    harness.run_pass(2)
    harness.workers[1].pop(10)
    settled = harness.renew(1, give_up=True)
    assert (settled.lost, settled.refused) == (10, 90)
    harness.ports[0].arrive(1, 100)
    harness.run_pass(2)
    assert harness.queue(0, 1).drop_no_worker == 190
    assert harness.queue(0, 1).drop_worker_lost == 10
    harness.ports[0].arrive(0, 5)
    harness.run_pass()
    assert harness.workers[0].pop() == 5
