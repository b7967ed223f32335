"""A simulated card whose wire has times of its own gives them to the packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.sim82599.port import Sim82599Port

from .fake_card import EOP, RXE, FakeCard, FakePort, number

PER_QUEUE: int = lib.RL_SIM_STAMPS_PER_QUEUE


class StampedPort(FakePort):
    """The port of a simulated card, over a card that the test plays."""

    use_stamps = Sim82599Port.use_stamps


class StampedCard(FakeCard):
    """Leaves a stamp with each frame, as the model does."""

    port_class = StampedPort
    port: Any

    def start(self) -> StampedCard:
        self.table = ffi.new("int64_t[]", 16 * PER_QUEUE)
        self.port.use_stamps(self.table)
        super().start()
        return self

    def arrive(self, time: int, queue: int = 0, status: int = EOP) -> bool:
        self.table[queue * PER_QUEUE + self.rx_head[queue]] = time
        return self.receive(number(time), queue, status=status)

    def burst(self, queue: int = 0, n: int = 64) -> list[int]:
        """The stamps of one receive burst, each checked against the number in the frame."""
        refs = self.rx_burst(queue, n)
        stamps = [int(self.c_port.stamps[i]) for i in range(len(refs))]
        assert [self.frame(ref) for ref in refs] == [number(stamp) for stamp in stamps]
        for ref in refs:
            self.ledger[ref.buffer] = lib.RL_LEDGER_FREE_WORD
            self.memory.free[self.memory.free_count] = ref.buffer
            self.memory.free_count += 1
        return stamps


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[StampedCard]:
    with StampedCard(instance(), queues=2) as card:
        yield card.start()


def test_every_packet_gets_the_stamp_of_its_descriptor(card: StampedCard) -> None:
    """Several times around the ring of 64 descriptors, on both queues."""
    for begin in range(0, 600, 40):
        for queue in (0, 1):
            wanted = [1000 * queue + begin + i for i in range(40)]
            assert all(card.arrive(time, queue) for time in wanted)
            assert card.burst(queue, 25) == wanted[:25]
            assert card.burst(queue) == wanted[25:]
            assert card.burst(queue) == []


def test_a_frame_with_an_error_does_not_shift_the_stamps(card: StampedCard) -> None:
    for time in range(40):
        status = EOP | RXE if time % 7 == 0 else 0 if time % 11 == 1 else EOP
        assert card.arrive(time, status=status)
    # A descriptor without EOP begins a chain: its frame ends with the next one and is dropped, too.
    dropped = {time for time in range(40) if time % 7 == 0 or time % 11 == 1 or time % 11 == 2}
    assert card.burst() == [time for time in range(40) if time not in dropped]


def test_without_free_buffers_the_stamps_wait_in_their_descriptors(card: StampedCard) -> None:
    for time in range(30):
        card.arrive(time)
    free, card.memory.free_count = card.memory.free_count, 10
    taken = card.rx_burst()
    assert [int(card.c_port.stamps[i]) for i in range(len(taken))] == list(range(10))
    card.memory.free_count = free - 10
    assert card.burst() == list(range(10, 30))
