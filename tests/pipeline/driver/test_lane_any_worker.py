"""Whatever a worker does, the books balance and no buffer is held twice."""

from __future__ import annotations

import os
from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from .lane_harness import BUFFERS, DROP, ERROR, QUEUES, Harness

PROOF = os.environ.get("RINGLINE_PROOF") == "1"


class AnyWorker(RuleBasedStateMachine):
    """Traffic, honest and hostile workers, deaths and full rings in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.harness = self.stack.enter_context(Harness(blanks=4))

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
        with self.stack:
            for port in self.harness.ports:
                port.tx_room, port.completing = 1 << 30, True
                for queue in port.arrived:
                    queue.clear()
            for slot in range(QUEUES):
                self.harness.renew(slot, give_up=True)
            self.harness.run_pass(30)
            assert self.harness.lane.in_flight == 0
            assert self.harness.lane.memory.free_count == BUFFERS


TestAnyWorker = AnyWorker.TestCase
TestAnyWorker.settings = settings(
    max_examples=2000 if PROOF else 40, stateful_step_count=60, deadline=None
)
