"""The lane's guarantees: whatever a worker does, the books balance and no buffer is held twice."""

from __future__ import annotations

import ctypes
import os
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ringline.pipeline._pipeline import lib
from ringline.shm.clock import ticks_per_second

from .lane_harness import BUFFERS, DROP, ERROR, QUEUES, Harness

PROOF = os.environ.get("RINGLINE_PROOF") == "1"


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


@pytest.mark.parametrize(
    ("change", "freed"),
    [
        ({"buffer": BUFFERS}, False),
        ({"buffer": 0xFFFFFFFF}, False),
        ({"offset": 2240, "length": 64}, True),
        ({"offset": 2200, "length": 64}, True),
        ({"offset": 0xFFFF, "length": 0xFFFF}, True),
        ({"offset": 0xFFF0, "length": 64}, True),  # whose end is in the buffer, in 16 bits
        ({"length": 0}, True),
        ({"length": 16}, True),
        ({"length": 1519, "offset": 192}, True),
        ({"length": 1515, "offset": 192, "flags": lib.RL_FLAG_VLAN}, True),  # with its tag 1519
        ({"port": 2}, True),
        ({"port": 253}, True),
    ],
)
def test_a_reference_that_is_not_right_is_counted_and_refused(
    harness: Harness, change: dict[str, int], freed: bool
) -> None:
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.push(**{**worker.held[0], "port": 1, **change})
    harness.run_pass(2)
    assert harness.books.slots[0].bad_reference == 1
    assert harness.queue(0, 0).drop_bad_reference == int(freed)
    assert harness.lane.in_flight == int(not freed)
    assert not harness.ports[1].sent


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
    harness = Harness(buffers=1600)  # more than a ring holds: the lane must load the peer's index
    ring, index = side.split(".")
    harness.ports[0].arrive(0, 2000)
    harness.run_pass()
    setattr(getattr(harness.workers[0], ring), index, 0x80000000)
    harness.run_pass(40)
    assert harness.books.slots[0].ring_faults == 1
    assert harness.books.slots[1].ring_faults == 0
    harness.renew(0)
    assert harness.problems() == []
    successor = harness.workers[0]
    taken = len(harness.ports[1].sent)
    harness.run_pass()
    assert successor.pop() > 0
    successor.answer(1, 1)
    harness.run_pass(2)
    assert len(harness.ports[1].sent) == taken + 1, "the successor is trusted again"
    harness.close()


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


def test_a_worker_that_keeps_its_packets_is_faulty_and_costs_no_other_queue_any() -> None:
    harness = Harness(blanks=4, buffers=6000)
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
    assert harness.problems() == []
    harness.close()


def test_what_piled_up_on_an_out_ring_does_not_stay_there(harness: Harness) -> None:
    """A pass takes up to two batches back and hands out one batch of 64 per port and queue."""
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


def test_never_more_goes_to_a_worker_than_its_ring_has_room_for() -> None:
    harness = Harness(buffers=1600)
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
    assert harness.problems() == []
    harness.close()


def test_each_packet_is_booked_where_it_came_in(harness: Harness) -> None:
    harness.ports[0].arrive(0, 3)
    harness.ports[1].arrive(0, 4)
    harness.run_pass()
    worker = harness.workers[0]
    worker.pop()
    worker.held = [worker.held[i] for i in (0, 3, 1, 4, 2, 5, 6)]  # ports alternate
    worker.answer(DROP)
    harness.run_pass()
    assert [harness.queue(port, 0).drop_plugin for port in (0, 1)] == [3, 4]


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


def test_a_sleeping_worker_is_woken_but_not_more_often_than_may_be(harness: Harness) -> None:
    lane, worker, slot = harness.lane._lane, harness.workers[0], harness.books.slots[0]
    lane.wake_interval = int(0.2 * ticks_per_second())
    for arrivals, wakeups in ((1, 1), (1, 1), (0, 1)):  # the first at once, then none for a while
        worker.in_.sleeping = 1
        harness.ports[0].arrive(0, arrivals)
        harness.run_pass()
        assert slot.wakeups == wakeups
    time.sleep(0.2)
    harness.run_pass()  # no packet arrives, but the delayed wake-up is due
    assert (slot.wakeups, worker.in_.sleeping) == (2, 0)


def test_a_run_that_moved_nothing_found_nothing(harness: Harness) -> None:
    """Also when the supervisor asks for a turn: a drain ends when a run moves nothing."""
    harness.ports[0].arrive(0, 10)
    harness.books.request += 1
    assert harness.lane.run(1.0) == 10
    assert harness.queue(0, 0).rx_packets == 10
    assert harness.lane.run(0.0) == 0


def test_sleeps_are_not_stretched_by_the_kernel(harness: Harness) -> None:
    harness.lane.run(0.001)
    get_timer_slack = 30  # PR_GET_TIMERSLACK of prctl(2), in ns
    assert ctypes.CDLL(None).prctl(get_timer_slack, 0, 0, 0, 0) == 1


def test_packets_for_a_port_whose_link_is_down_are_dropped_by_that_name(harness: Harness) -> None:
    harness.ports[1].c_port.ready = 0
    harness.ports[0].arrive(0, 3)
    harness.run_pass()
    harness.workers[0].pop()
    harness.workers[0].answer(1)
    harness.run_pass(2)
    assert harness.queue(0, 0).drop_tx_down == 3


def test_blanks_are_granted_sent_returned_and_lost_in_books_of_their_own() -> None:
    harness = Harness(blanks=8)
    harness.run_pass()
    worker = harness.workers[0]
    assert worker.pop() == 8
    assert harness.lane.in_flight == 0, "blanks in hand are no packets: a drain would wait for them"
    worker.answer(1, 3)
    worker.answer(DROP, 2)
    harness.run_pass(2)
    slot = harness.books.slots[0]
    assert (slot.blanks_transmitted, slot.blanks_returned) == (3, 2)
    assert len(harness.ports[1].sent) == 3
    harness.renew(0)
    assert slot.blanks_lost == 3
    assert harness.queue(0, 0).rx_packets == 0
    assert harness.problems() == []
    harness.close()


def test_blanks_wait_for_free_buffers() -> None:
    harness = Harness(blanks=8, buffers=12)
    harness.run_pass(3)
    assert [slot.blanks_granted for slot in harness.books.slots[0:QUEUES]] == [8, 4]
    assert harness.problems() == []
    harness.workers[0].pop()
    harness.workers[0].answer(DROP, 1)
    harness.run_pass(2)
    assert sum(slot.blanks_granted for slot in harness.books.slots[0:QUEUES]) == 13
    assert harness.problems() == []
    harness.close()


def test_no_blanks_are_granted_while_nothing_is_received() -> None:
    harness = Harness(blanks=8)
    harness.lane.receiving = False  # a stopping worker returns its blanks and needs no new ones
    harness.run_pass(2)
    assert harness.books.slots[0].blanks_granted == 0
    harness.close()


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("queues[0].rx_packets", "packets_residual[0] = 1"),
        ("queues[0].drop_plugin", "packets_residual[0] = -1"),
        ("queues[0].drop_driver_lost", "packets_residual[0] = -1"),
        ("slots[1].pushed", "worker_residual[1] = 1"),
        ("slots[0].blanks_granted", "blanks_residual = 1"),
    ],
)
def test_a_count_that_is_wrong_is_told(lie: str, told: str) -> None:
    harness = Harness(blanks=2)
    harness.ports[0].arrive(0, 3)
    harness.run_pass(2)
    block, counter = lie.split("].")
    array, index = block.split("[")
    counters = getattr(harness.books, array)[int(index)]
    setattr(counters, counter, getattr(counters, counter) + 1)
    assert harness.problems() == [told]
    harness.close()


def test_a_buffer_that_is_held_twice_or_by_nobody_is_told() -> None:
    harness = Harness()
    memory = harness.lane._lane.memory
    memory.free[0] = memory.free[1]
    assert harness.problems() == ["scan_missing = 1", "scan_duplicates = 1"]
    memory.free_count -= 1
    assert "buffers_residual = 1" in harness.problems()
    harness.close()


class AnyWorker(RuleBasedStateMachine):
    """Traffic, honest and hostile workers, deaths and full rings in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(blanks=4)

    ports = st.integers(0, 1)
    queues = st.integers(0, QUEUES - 1)
    counts = st.integers(1, 200)

    @rule(port=ports, queue=queues, count=counts, length=st.integers(60, 1518))
    def arrive(self, port: int, queue: int, count: int, length: int) -> None:
        self.harness.ports[port].arrive(queue, count, length)

    @rule(times=st.integers(1, 6))
    def run(self, times: int) -> None:
        self.harness.run_pass(times)

    @rule(queue=queues, count=st.integers(1, 64))
    def pop(self, queue: int, count: int) -> None:
        if worker := self.harness.workers[queue]:
            worker.pop(count)

    @rule(queue=queues, verdict=st.sampled_from([0, 1, DROP, ERROR]), count=counts)
    def answer(self, queue: int, verdict: int, count: int) -> None:
        if worker := self.harness.workers[queue]:
            worker.answer(verdict, count)

    @rule(
        queue=queues,
        buffer=st.one_of(st.integers(0, BUFFERS + 5), st.just(0xFFFFFFFF)),
        offset=st.integers(0, 0xFFFF),
        length=st.integers(0, 0xFFFF),
        port=st.integers(0, 255),
        flags=st.integers(0, 255),
    )
    def lie(self, queue: int, **fields: int) -> None:
        if worker := self.harness.workers[queue]:
            worker.push(**fields)

    @rule(queue=queues, index=st.integers(0, 0xFFFFFFFF), which=st.booleans())
    def break_an_index(self, queue: int, index: int, which: bool) -> None:
        if worker := self.harness.workers[queue]:
            if which:
                worker.out.producer = index
            else:
                worker.in_.consumer = index

    @rule(queue=queues, entry=st.integers(0, 1023), buffer=st.integers(0, BUFFERS))
    def overwrite_an_unpopped_reference(self, queue: int, entry: int, buffer: int) -> None:
        if worker := self.harness.workers[queue]:
            worker.in_.entries[entry].buffer = buffer

    @rule(queue=queues, give_up=st.booleans())
    def die(self, queue: int, give_up: bool) -> None:
        self.harness.renew(queue, give_up)

    @rule(port=ports, room=st.integers(0, 300), completing=st.booleans())
    def tx(self, port: int, room: int, completing: bool) -> None:
        self.harness.ports[port].tx_room = room
        self.harness.ports[port].completing = completing

    @rule(port=ports, up=st.booleans())
    def link(self, port: int, up: bool) -> None:
        self.harness.ports[port].c_port.ready = up

    @invariant()
    def the_books_balance(self) -> None:
        assert self.harness.problems() == []

    def teardown(self) -> None:
        for port in self.harness.ports:
            port.tx_room, port.completing = 1 << 30, True
            port.arrived = [type(port.arrived[0])() for _ in range(QUEUES)]
        for queue in range(QUEUES):
            self.harness.renew(queue, give_up=True)
        self.harness.run_pass(30)
        assert self.harness.problems() == []
        assert self.harness.lane.in_flight == 0
        assert self.harness.lane.memory.free_count == BUFFERS
        self.harness.close()


TestAnyWorker = AnyWorker.TestCase
TestAnyWorker.settings = settings(
    max_examples=2000 if PROOF else 40, stateful_step_count=60, deadline=None
)
