"""Random sequences of card and lane operations on the rings of the 82599: every frame arrives in
order, and every buffer is in exactly one place."""

from __future__ import annotations

import itertools
import os
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from .fake_card import EOP, RXE, FakeCard, Sent, number

numbers = itertools.count(1)
counts = st.integers(1, 70)


class Rings(RuleBasedStateMachine):
    """One queue with short rings and few spare buffers, so that each of them runs out."""

    def __init__(self) -> None:
        super().__init__()
        self.card = FakeCard(f"t{os.getpid()}-rings{next(numbers)}", buffers=64 + 90).start()
        self.frames = itertools.count()
        self.arrived: list[bytes] = []  # without errors, not received yet
        self.with_worker: list[Any] = []
        self.posted: list[Sent] = []  # the card has not sent them yet
        self.errors = 0

    @rule(count=counts, wrong=st.sampled_from([None, None, None, "error", "long", "chain"]))
    def arrive(self, count: int, wrong: str | None) -> None:
        for _ in range(count):
            frame = number(next(self.frames))
            if wrong == "chain" and self.room() < 2:
                return
            status = {"error": EOP | RXE, "chain": 0}.get(wrong or "", EOP)
            if not self.card.receive(frame, status=status, length=3000 if wrong == "long" else 60):
                return
            if wrong is None:
                self.arrived.append(frame)
            else:
                self.errors += 1
            if wrong == "chain":
                self.card.receive(frame)

    def room(self) -> int:
        return (self.card.tail() - self.card.rx_head[0]) % 64

    @rule(n=st.integers(0, 64))
    def receive(self, n: int) -> None:
        for ref in self.card.rx_burst(n=n):
            assert self.card.frame(ref) == self.arrived.pop(0)
            self.with_worker.append(self.card.held(ref))

    @rule(n=st.integers(0, 64), tags=st.lists(st.sampled_from([None, 1, 2]), min_size=1))
    def send(self, n: int, tags: list[int | None]) -> None:
        refs = self.with_worker[:n]
        for ref, tag in zip(refs, itertools.cycle(tags), strict=False):
            ref.flags, ref.vlan_tci = int(tag is not None), tag or 0
        sent = self.card.tx_burst(refs)
        for ref in refs[:sent]:
            self.posted.append(Sent(self.card.frame(ref), ref.vlan_tci if ref.flags else None))
        del self.with_worker[:sent]

    @rule(limit=counts)
    def transmit(self, limit: int) -> None:
        for sent in self.card.transmit(limit=limit):
            assert sent == self.posted.pop(0)

    @rule()
    def reclaim(self) -> None:
        self.card.reclaim()

    @precondition(lambda self: self.card.memory.free_count > 3)
    @rule()
    def make_a_packet(self) -> None:
        self.with_worker.append(self.card.packet(number(next(self.frames))))

    @invariant()
    def every_buffer_is_in_one_place(self) -> None:
        assert set(self.card.residuals().values()) == {0}

    def teardown(self) -> None:
        card = self.card
        with card:
            while card.rx_burst():
                pass
            for ref in self.with_worker:
                card.ledger[ref.buffer] = 0
            card.port.stop()
            assert card.counters(0).drop_rx_error <= self.errors
            assert card.port.posted() == (0, 0)


TestRings = Rings.TestCase
