"""Buffers of several units: the lane, its free list and its books."""

from __future__ import annotations

import pytest

from ringline.shm._shm import lib
from ringline.shm.frames import frame_max

from .lane_harness import DROP, Harness

UNITS = 5
LONGEST = frame_max(9000)
ROOM = UNITS * lib.RL_BUFFER_STRIDE


@pytest.fixture
def harness():
    with Harness(units=UNITS, frame_max=(LONGEST, lib.RL_FRAME_MAX)) as harness:
        yield harness


def test_every_buffer_is_found_and_has_the_number_of_its_first_unit(harness) -> None:
    memory = harness.lane._lane.memory
    free = sorted(memory.free[at] for at in range(memory.free_count))
    assert free == list(range(0, memory.buffers, UNITS))
    assert harness.problems() == []
    assert harness.books.balance.free == memory.buffers // UNITS
    assert harness.books.balance.unusable == 0


@pytest.mark.parametrize("length", [1514, 1518, 1519, 2047, 2048, 2049, 4096, 8999, 9000, 9018])
def test_a_jumbo_frame_goes_back(harness, length: int) -> None:
    harness.ports[0].arrive(0, 3, length)
    harness.run_pass()
    harness.workers[0].pop()
    assert [ref["length"] for ref in harness.workers[0].held] == [length] * 3
    harness.workers[0].answer(0)
    harness.run_pass(2)
    assert [sent[2] for sent in harness.ports[0].sent] == [length] * 3
    assert all(buffer % UNITS == 0 for buffer, _, _ in harness.ports[0].sent)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"length": LONGEST + 1}, "too_long"),
        ({"length": LONGEST - 3, "flags": lib.RL_FLAG_VLAN}, "too_long"),
        ({"offset": ROOM - LONGEST + 1, "length": LONGEST}, "outside_buffer"),
        ({"length": 16}, "too_short"),
    ],
)
def test_a_frame_that_fits_no_port_or_no_buffer_is_refused(harness, change, cause: str) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.push(**{**worker.held[0], "port": 0, **change})
    harness.run_pass(2)
    assert getattr(harness.books.slots[0].refusals, cause) == 1
    assert harness.queue(0, 0).drop_bad_reference == 1
    assert not harness.ports[0].sent


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({"length": 1518}, True),
        ({"length": 1519}, False),
        ({"length": 1514, "flags": lib.RL_FLAG_VLAN}, True),
        ({"length": 1515, "flags": lib.RL_FLAG_VLAN}, False),
        ({"length": 9018}, False),
    ],
)
def test_a_frame_too_long_for_its_port_alone_breaks_no_rule(harness, change, sent: bool) -> None:
    """The second port sends no jumbo frames."""
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.push(**{**worker.held[0], "port": 1, **change})
    harness.run_pass(2)
    assert len(harness.ports[1].sent) == sent
    assert harness.queue(0, 0).drop_tx_too_long == (not sent)
    assert harness.books.slots[0].bad_reference == 0
    assert harness.books.slots[0].returned == 1


@pytest.mark.parametrize("verdict", [0, DROP])
def test_a_unit_in_the_middle_of_a_buffer_is_no_buffer(harness, verdict: int) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    held = worker.held[0]
    for unit in range(1, UNITS):
        worker.push(**{**held, "buffer": held["buffer"] + unit, "port": verdict})
    harness.run_pass(2)
    assert harness.books.slots[0].refusals.not_held == UNITS - 1
    worker.answer(DROP)
    harness.run_pass(2)


def test_jumbo_frames_survive_their_worker(harness) -> None:
    """One that it has popped is lost; those that it has not go to its successor."""
    harness.ports[0].arrive(0, 4, 9000)
    harness.run_pass()
    harness.workers[0].pop(1)
    settled = harness.renew(0)
    assert (settled.lost, settled.carried) == (1, 3)
    harness.workers[0].pop()
    assert [ref["length"] for ref in harness.workers[0].held] == [9000] * 3
    harness.workers[0].answer(0)
    harness.run_pass(2)
    assert len(harness.ports[0].sent) == 3
