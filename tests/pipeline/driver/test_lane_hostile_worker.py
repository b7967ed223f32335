"""A worker that lies cannot touch another worker's buffers, nor free or send one twice."""

from __future__ import annotations

import pytest

from ringline.pipeline._pipeline import lib
from ringline.shm import counters
from ringline.shm.refusals import CAUSES

from .lane_harness import BUFFERS, DROP, QUEUES, Harness


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"buffer": BUFFERS}, "not_held"),
        ({"buffer": 0xFFFFFFFF}, "not_held"),
        ({"offset": 2240, "length": 64}, "outside_buffer"),
        ({"offset": 2200, "length": 64}, "outside_buffer"),
        ({"offset": 2240 - 63, "length": 64}, "outside_buffer"),  # ends one byte behind the buffer
        ({"offset": 2240 - 63, "length": 64, "flags": lib.RL_FLAG_VLAN}, "outside_buffer"),
        ({"offset": 0xFFFF, "length": 0xFFFF}, "too_long"),
        (
            {"offset": 0xFFF0, "length": 64},
            "outside_buffer",
        ),  # the end overflows 16 bits and looks valid
        ({"length": 0}, "too_short"),
        ({"length": 16}, "too_short"),
        ({"length": 1519, "offset": 192}, "too_long"),
        (
            {"length": 1515, "offset": 192, "flags": lib.RL_FLAG_VLAN},
            "too_long",
        ),  # 1519 with the tag
        ({"port": 2}, "no_port"),
        ({"port": 253}, "no_port"),
    ],
)
def test_an_invalid_reference_is_counted_and_refused(
    harness: Harness, change: dict[str, int], cause: str
) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.push(**{**worker.held[0], "port": 1, **change})
    harness.run_pass(2)
    freed = cause != "not_held"
    assert harness.books.slots[0].bad_reference == 1
    refused = counters.read(harness.books.slots[0].refusals)
    assert refused == {name: int(name == cause) for name in CAUSES}
    assert harness.queue(0, 0).drop_bad_reference == int(freed)
    assert harness.lane.in_flight == int(not freed)
    assert not harness.ports[1].sent


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 2240 - 64, "length": 64},  # the last bytes of the buffer
        {"offset": 2240 - 64, "length": 64, "flags": lib.RL_FLAG_VLAN},
        {"offset": 0, "length": 1518},
        {"offset": 0, "length": 1514, "flags": lib.RL_FLAG_VLAN},  # 1518 with the tag
        {"length": lib.RL_FRAME_MIN},
    ],
)
def test_a_frame_at_the_limits_is_sent(harness: Harness, change: dict[str, int]) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.push(**{**worker.held[0], "port": 1, **change})
    harness.run_pass(2)
    assert harness.books.slots[0].bad_reference == 0
    assert len(harness.ports[1].sent) == 1


def test_a_buffer_cannot_be_returned_twice(harness: Harness) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    for _ in range(3):
        worker.push(**{**worker.held[0], "port": 1})
    harness.run_pass(2)
    worker.push(**{**worker.held[0], "port": DROP})
    harness.run_pass(2)
    assert len(harness.ports[1].sent) == 1
    assert harness.books.slots[0].bad_reference == 3


@pytest.mark.parametrize("verdict", [1, DROP, 77])
def test_a_word_behind_the_ledger_names_no_holder(harness: Harness, verdict: int) -> None:
    """Not even if it looks like a word of this worker."""
    worker = harness.workers[0]
    word = lib.RL_HOLDER_WORKER << 28 | harness.lane._lane.slots[0].generation << 16
    harness.lane._lane.memory.ledger[BUFFERS] = word
    free = harness.lane._lane.memory.free_count
    worker.push(buffer=BUFFERS, offset=192, length=60, port=verdict)
    harness.run_pass()
    entry = worker.in_.entries[0]
    entry.buffer, entry.offset, entry.length = BUFFERS, 192, 60
    worker.in_.producer = 1
    getattr(harness.lane._lane.slots[0], "in").own = 1  # as if the lane had pushed it
    settled = harness.renew(0)
    assert (settled.carried, settled.lost) == (0, 0)
    assert harness.books.slots[0].refusals.not_held == 1
    assert harness.lane._lane.memory.ledger[BUFFERS] == word
    assert harness.lane._lane.memory.free_count == free
    assert not harness.ports[1].sent


def test_a_worker_cannot_return_what_another_holds(harness: Harness) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    holder, thief = harness.workers
    holder.pop()
    thief.push(**{**holder.held[0], "port": 1})
    harness.run_pass(2)
    assert harness.books.slots[1].bad_reference == 1
    assert not harness.ports[1].sent
    holder.answer(1)
    harness.run_pass(2)
    assert len(harness.ports[1].sent) == 1


@pytest.mark.parametrize("side", ["in_.consumer", "out.producer"])
def test_an_index_out_of_range_marks_the_worker_faulty(side: str) -> None:
    # More buffers than ring entries: the lane reads its peer's index when `in` seems full.
    with Harness(buffers=1600) as harness:
        ring, index = side.split(".")
        harness.ports[0].arrive(0, 2000)
        harness.run_pass()
        setattr(getattr(harness.workers[0], ring), index, 0x80000000)
        harness.run_pass(40)
        assert harness.books.slots[0].ring_faults == 1
        assert harness.books.slots[1].ring_faults == 0
        assert not harness.lane.moving, "its packets stay on the card"
        harness.renew(0)
        assert harness.problems() == []
        successor = harness.workers[0]
        sent = len(harness.ports[1].sent)
        harness.run_pass()
        assert successor.pop() > 0
        successor.answer(1, 1)
        harness.run_pass(2)
        assert len(harness.ports[1].sent) == sent + 1, "the successor is trusted again"


def test_a_worker_that_keeps_its_packets_is_faulty_and_other_queues_lose_none() -> None:
    with Harness(blanks=4, buffers=6000) as harness:
        for queue in range(QUEUES):
            harness.ports[0].arrive(queue, 100_000)
        hoarder, honest = harness.workers
        for _ in range(100):
            harness.run_pass()
            hoarder.pop()
            honest.pop()
            honest.held.sort(key=lambda ref: ref["flags"] & lib.RL_FLAG_BLANK)
            honest.answer(1, len(honest.held) - 4)  # all but the blanks
        assert harness.books.slots[0].ring_faults == 1
        assert harness.books.slots[1].ring_faults == 0
        full_rings_and_a_batch = 2 * lib.RL_RING_CAPACITY + lib.RL_BATCH_MAX
        assert 0 < len(hoarder.held) - full_rings_and_a_batch <= 4 + lib.RL_BATCH_MAX
        assert harness.queue(0, 1).rx_packets == 100 * lib.RL_BATCH_MAX
