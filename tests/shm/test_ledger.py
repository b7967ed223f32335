"""The guarantees of ledger.h, and how Python reads a ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from cffi import FFI
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from ringline.shm import ledger
from ringline.shm._shm import ffi as shm_ffi
from ringline.shm._shm import lib as constants
from ringline.shm.errors import BooksError
from ringline.shm.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
FREE_WORD = ledger.FREE << 28
BUFFERS = 40
QUEUES = 3
PORTS = 2

queues = st.integers(0, constants.RL_QUEUES_MAX - 1)
inputs = st.one_of(st.integers(0, constants.RL_PORTS_MAX - 1), st.just(ledger.BLANK))
generations = st.one_of(st.integers(0, 5), st.integers(4090, 4100), st.integers(0, 2**32 - 1))


@pytest.fixture(scope="module", autouse=True)
def calls(build_c: Callable[..., Path]) -> Any:
    """The functions of ledger.h."""
    ffi = FFI()
    ffi.cdef(
        """
        uint32_t card_rx(uint32_t port);
        uint32_t worker(uint32_t generation, uint32_t queue, uint32_t input);
        uint32_t card_tx(uint32_t word, uint32_t output);
        int is_worker(uint32_t word, uint32_t generation, uint32_t queue);
        uint32_t holder(uint32_t word);
        uint32_t output(uint32_t word);
        uint32_t queue(uint32_t word);
        uint32_t input(uint32_t word);
        """
    )
    library = ffi.dlopen(str(build_c("tests/shm/ledger_calls.c", flags=["-shared", "-fPIC"])))
    Books.c = library
    return library


@given(queue=queues, port=inputs, generation=generations)
def test_input_port_survives(calls: Any, queue: int, port: int, generation: int) -> None:
    # From receive, through the worker and the TX ring, to completion.
    word = calls.worker(generation, queue, port)
    for output in (0, 15, 0xFFF):
        sent = calls.card_tx(word, output)
        assert (calls.input(sent), calls.queue(sent)) == (port, queue)
        assert calls.output(sent) == output
        assert calls.holder(sent) == ledger.CARD_TX


@given(queue=queues, port=inputs, generation=generations, other=generations, wrong=queues)
def test_other_generation_is_refused(
    calls: Any, queue: int, port: int, generation: int, other: int, wrong: int
) -> None:
    word = calls.worker(generation, queue, port)
    assert calls.is_worker(word, generation, queue)
    assert calls.is_worker(word, other, queue) == (other % 4096 == generation % 4096)
    assert calls.is_worker(word, generation, wrong) == (wrong == queue)


@given(queue=queues, port=inputs, generation=generations, output=st.integers(0, 15))
def test_second_return_is_refused(
    calls: Any, queue: int, port: int, generation: int, output: int
) -> None:
    # A returned buffer is on a TX ring, free or posted: its word never names a worker.
    word = calls.worker(generation, queue, port)
    for after in (calls.card_tx(word, output), FREE_WORD, calls.card_rx(output), 0):
        for any_generation in (generation, 0, 1, 4095):
            for any_queue in range(constants.RL_QUEUES_MAX):
                assert not calls.is_worker(after, any_generation, any_queue)


@given(word=st.integers(0, 2**32 - 1))
def test_python_reads_words_as_c_does(calls: Any, word: int) -> None:
    assert ledger.holder(word) == calls.holder(word)
    assert ledger.generation_of(word) == calls.output(word)
    assert ledger.queue_of(word) == calls.queue(word)
    assert ledger.input_of(word) == calls.input(word)


class Books(RuleBasedStateMachine):
    """Moves buffers by the rules of the ledger and compares it with sets of holders.

    Workers return buffers that they hold, that they held, and that they never held.
    """

    c: ClassVar[Any] = None
    had = Bundle("had")

    def __init__(self) -> None:
        super().__init__()
        self.words = [FREE_WORD] * BUFFERS
        self.free = set(range(BUFFERS))
        self.posted: set[int] = set()
        self.sending: dict[int, tuple[int, int]] = {}  # buffer -> (queue, input)
        self.held: dict[int, tuple[int, int, int]] = {}  # buffer -> (generation, queue, input)
        self.generation = [1] * QUEUES

    @rule(port=st.integers(0, PORTS - 1))
    def post(self, port: int) -> None:
        if self.free:
            buffer = min(self.free)
            self.free.remove(buffer)
            self.posted.add(buffer)
            self.words[buffer] = self.c.card_rx(port)

    @rule(target=had, queue=st.integers(0, QUEUES - 1))
    def receive(self, queue: int) -> tuple[int, int, int]:
        if not self.posted:
            return (0, 0, 0)
        buffer = min(self.posted)
        self.posted.remove(buffer)
        port = self.c.input(self.words[buffer])
        self.words[buffer] = self.c.worker(self.generation[queue], queue, port)
        self.held[buffer] = (self.generation[queue], queue, port)
        return (buffer, self.generation[queue], queue)

    @rule(claim=had, output=st.integers(0, PORTS - 1), impostor=st.integers(0, QUEUES - 1))
    def give_back(self, claim: tuple[int, int, int], output: int, impostor: int) -> None:
        buffer, generation, queue = claim
        for claimed in (impostor, queue):
            mine = self.held.get(buffer)
            accepted = self.c.is_worker(self.words[buffer], generation, claimed)
            assert bool(accepted) == (mine is not None and mine[:2] == (generation, claimed))
            if accepted:
                del self.held[buffer]
                self.words[buffer] = self.c.card_tx(self.words[buffer], output)
                self.sending[buffer] = (mine[1], mine[2])

    @rule()
    def complete(self) -> None:
        for buffer, came_in in self.sending.items():
            word = self.words[buffer]
            assert (self.c.queue(word), self.c.input(word)) == came_in
            self.words[buffer] = FREE_WORD
            self.free.add(buffer)
        self.sending.clear()

    @rule(queue=st.integers(0, QUEUES - 1))
    def replace_a_worker(self, queue: int) -> None:
        for buffer, (_, holder, _) in list(self.held.items()):
            if holder == queue:
                del self.held[buffer]
                self.words[buffer] = FREE_WORD
                self.free.add(buffer)
        self.generation[queue] += 1

    @invariant()
    def every_buffer_has_the_holder_that_the_ledger_says(self) -> None:
        expected = {
            ledger.FREE: self.free,
            ledger.CARD_RX: self.posted,
            ledger.CARD_TX: set(self.sending),
            ledger.WORKER: set(self.held),
        }
        for holder, buffers in expected.items():
            assert {b for b, w in enumerate(self.words) if self.c.holder(w) == holder} == buffers


class TestBooks(Books.TestCase):
    settings = settings(max_examples=2000 if PROOF else 40, stateful_step_count=50, deadline=None)


def test_every_buffer_has_one_holder(calls: Any) -> None:
    # The holder is one field of the word; these are all its values, and all differ.
    worker = calls.worker(9, 3, 1)
    words = [0, FREE_WORD, calls.card_rx(1), calls.card_tx(worker, 2), worker]
    assert [calls.holder(word) for word in words] == [
        ledger.UNUSABLE,
        ledger.FREE,
        ledger.CARD_RX,
        ledger.CARD_TX,
        ledger.WORKER,
    ]


def lane_segment(instance: str, buffers: int) -> Segment:
    start = shm_ffi.sizeof("struct rl_lane_segment")
    segment = Segment.create(
        instance, "lane.0", start + 4 * buffers, kind=constants.RL_SEGMENT_LANE
    )
    books = segment.at("struct rl_lane_segment *")
    books.ledger_offset = start
    books.buffers = buffers
    return segment


def test_a_ledger_is_read_from_its_segment(calls: Any, instance: Callable[[], str]) -> None:
    with lane_segment(instance(), 5) as segment:
        view = ledger.Ledger(segment)
        assert view.all() == [0] * 5, "zeroed memory reads as unusable buffers"
        view.words[3] = calls.worker(1, 2, 0)
        view.words[4] = calls.worker(1, 2, 1)
        assert view.word(3) == calls.worker(1, 2, 0)
        assert view.held_by_workers() == [0, 0, 2] + [0] * 13
        for outside in (-1, 5):
            with pytest.raises(IndexError):
                view.word(outside)


@pytest.mark.parametrize(("field", "value"), [("buffers", 10**9), ("ledger_offset", 8)])
def test_an_impossible_ledger_is_not_read(
    instance: Callable[[], str], field: str, value: int
) -> None:
    with lane_segment(instance(), 5) as segment:
        setattr(segment.at("struct rl_lane_segment *"), field, value)
        with pytest.raises(BooksError, match="says that its ledger has"):
            ledger.Ledger(segment)
