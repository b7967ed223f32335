"""The guarantees of ring.h in one thread. Threads and processes: test_ring_stress.py."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.rings import RingEnd, RingFault, RingPair
from ringline.shm.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Callable

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
CAPACITY = lib.RL_RING_CAPACITY
WRAP = 1 << 32
STARTS = st.one_of(st.just(0), st.integers(WRAP - 3 * CAPACITY, WRAP - 1), st.integers(0, WRAP - 1))


def reference(number: int) -> tuple[int, int, int, int, int, int, int]:
    mixed = number * 2654435761
    return (
        number % WRAP,
        mixed % 65536,
        mixed // 7 % 65536,
        mixed % WRAP,
        mixed // 11 % 65536,
        mixed // 13 % 256,
        mixed // 17 % 256,
    )


def make_ring(start: int = 0) -> tuple[Any, RingEnd, RingEnd]:
    """Return a ring in private memory, its producer's end and its consumer's end."""
    ring = ffi.new("struct rl_ring *")
    ring.producer = ring.consumer = start
    ends = RingEnd(ring), RingEnd(ring)
    for end in ends:
        end.end.own = end.end.peer = start
    return ring, *ends


class AnyUseOfARing(RuleBasedStateMachine):
    """Pushes, pops, peeks and takes in any order and size, compared with a deque."""

    @initialize(start=STARTS)
    def begin(self, start: int) -> None:
        self.ring, self.producer, self.consumer = make_ring(start)
        self.inside: deque[tuple[int, ...]] = deque()
        self.made = 0

    @rule(n=st.one_of(st.integers(0, 64), st.integers(0, 2 * CAPACITY)))
    def push(self, n: int) -> None:
        batch = [reference(self.made + i) for i in range(n)]
        pushed = self.producer.push(batch)
        assert pushed == min(n, CAPACITY - len(self.inside))
        self.inside.extend(batch[:pushed])
        self.made += pushed

    @rule(n=st.one_of(st.integers(0, 64), st.integers(0, 2 * CAPACITY)))
    def pop(self, n: int) -> None:
        popped = self.consumer.pop(n)
        assert popped == [self.inside.popleft() for _ in range(min(n, len(self.inside)))]

    @rule(n=st.integers(1, 128), part=st.floats(0, 1))
    def peek_and_take_a_part(self, n: int, part: float) -> None:
        seen = self.consumer.peek(n)
        assert seen == list(self.inside)[:n]
        taken = int(len(seen) * part)
        self.consumer.take(taken)
        for _ in range(taken):
            self.inside.popleft()

    @rule(want=st.integers(0, 2 * CAPACITY))
    def room(self, want: int) -> None:
        assert self.producer.room(want) == min(want, CAPACITY - len(self.inside))

    @invariant()
    def the_indices_tell_how_many_are_inside(self) -> None:
        assert (self.ring.producer - self.ring.consumer) % WRAP == len(self.inside)


TestOrderAndContentUnderAnyUse = AnyUseOfARing.TestCase
TestOrderAndContentUnderAnyUse.settings = settings(
    max_examples=2000 if PROOF else 40, stateful_step_count=60, deadline=None
)


@pytest.mark.parametrize("start", [0, WRAP - 100], ids=["from 0", "across the wrap"])
def test_order_and_content(start: int) -> None:
    _, producer, consumer = make_ring(start)
    out = []
    for number in range(0, 4000, 50):
        assert producer.push([reference(number + i) for i in range(50)]) == 50
        out += consumer.pop(64)
    assert out == [reference(number) for number in range(4000)]


def test_bytes_are_references_too() -> None:
    _, producer, consumer = make_ring()
    both = [reference(1), reference(2)]
    data = bytes(ffi.buffer(ffi.new("struct rl_reference[]", both)))
    assert len(data) == 32
    assert producer.push(data) == 2
    assert consumer.pop(9) == both


def test_full_and_empty_return_at_once() -> None:
    _, producer, consumer = make_ring()
    assert consumer.pop(64) == []
    assert consumer.peek(64) == []
    assert producer.push([reference(i) for i in range(CAPACITY)]) == CAPACITY
    assert producer.room(64) == 0
    assert producer.push([reference(0)]) == 0
    assert len(consumer.pop(CAPACITY + 1)) == CAPACITY


@pytest.mark.parametrize("start", [0, WRAP - 10], ids=["from 0", "across the wrap"])
def test_hostile_peer_index(start: int) -> None:
    # For any index that the consumer publishes, the producer finds at most the capacity
    # as room, or reports a fault. The same holds for the consumer.
    for lie in [1, CAPACITY, CAPACITY + 1, 2**31, WRAP - CAPACITY - 1, WRAP - 1]:
        ring, producer, _ = make_ring(start)
        producer.push([reference(i) for i in range(CAPACITY)])
        ring.consumer = (start + lie) % WRAP
        if lie <= CAPACITY:
            assert producer.room(2 * CAPACITY) == lie
        else:
            with pytest.raises(RingFault, match="out of range"):
                producer.room(1)
            with pytest.raises(RingFault):
                producer.push([reference(0)])
            assert ring.producer == (start + CAPACITY) % WRAP, "nothing was pushed"

        ring, _, consumer = make_ring(start)
        ring.producer = (start + lie) % WRAP
        if lie <= CAPACITY:
            assert len(consumer.pop(2 * CAPACITY)) == lie
        else:
            for use in (consumer.pop, consumer.peek):
                with pytest.raises(RingFault):
                    use(64)
            assert ring.consumer == start, "nothing was taken"


def test_hostile_peer_index_that_runs_back() -> None:
    # The producer moves its index back. References up to the index that the consumer has
    # read stay valid; the next read of the index is a fault.
    ring, producer, consumer = make_ring()
    producer.push([reference(i) for i in range(100)])
    assert len(consumer.pop(60)) == 60
    ring.producer = 30
    assert len(consumer.pop(40)) == 40, "they were published when the index was last read"
    with pytest.raises(RingFault):
        consumer.pop(1)
    # The same for the consumer's index: what the producer has read of it stays valid.
    ring, producer, _ = make_ring()
    ring.consumer = WRAP - 5
    assert producer.room(CAPACITY) == CAPACITY
    ring.consumer = 5
    assert producer.room(CAPACITY) == CAPACITY
    with pytest.raises(RingFault):
        producer.room(CAPACITY + 1)


def test_hostile_peer_writes_anything_anywhere() -> None:
    # A peer can write the whole ring. The guard bytes around it must not change, and
    # every call returns a count within bounds or a fault.
    size = ffi.sizeof("struct rl_ring")
    memory = ffi.new("char[]", 3 * size)
    ffi.memmove(memory, b"\xa5" * (3 * size), 3 * size)
    ring = ffi.cast("struct rl_ring *", memory + size)
    for _ in range(3000 if PROOF else 300):
        ffi.memmove(ring, os.urandom(size), size)
        ends = RingEnd(ring), RingEnd(ring)
        for end in ends:
            end.end.own = end.end.peer = int.from_bytes(os.urandom(4), "little")
        ring.consumer = (ends[0].end.own + int.from_bytes(os.urandom(1), "little") - 128) % WRAP
        ring.producer = (ends[1].end.own + int.from_bytes(os.urandom(1), "little") - 128) % WRAP
        for use in (lambda e=ends[0]: e.push([reference(7)] * 64), lambda e=ends[1]: e.pop(64)):
            try:
                done = use()
            except RingFault:
                continue
            assert (done if isinstance(done, int) else len(done)) <= 64
        assert bytes(ffi.buffer(memory, size)) == b"\xa5" * size
        assert bytes(ffi.buffer(memory + 2 * size, size)) == b"\xa5" * size


def test_a_sleeper_is_woken_or_wakes_by_itself() -> None:
    ring, producer, consumer = make_ring()
    consumer.sleep(0.001)
    assert ring.sleeping == 0, "it woke up at the timeout"

    asleep = threading.Thread(target=consumer.sleep, args=(0.9,))
    asleep.start()
    deadline = time.monotonic() + 10
    while not producer.is_asleep() and time.monotonic() < deadline:
        time.sleep(0.001)
    producer.push([reference(1)])
    while asleep.is_alive() and time.monotonic() < deadline:
        producer.wake()
        time.sleep(0.001)
    asleep.join()
    assert consumer.pop(2) == [reference(1)]


def test_a_consumer_with_references_to_take_does_not_sleep() -> None:
    took = []
    for _ in range(3):  # one of three tries must not be delayed by the machine
        ring, producer, consumer = make_ring()
        producer.push([reference(1)])
        began = time.monotonic()
        consumer.sleep(0.9)
        took.append(time.monotonic() - began)
        assert ring.sleeping == 0
        assert consumer.pop(2) == [reference(1)]
        if took[-1] < 0.9:
            break
    assert min(took) < 0.9, "it slept until the timeout"


def test_a_pair_is_two_empty_rings_in_one_segment(instance: Callable[[], str]) -> None:
    name = instance()
    with RingPair.create(name, 3, 17) as rings:
        assert rings.segment.name == f"/ringline.{name}.rings.3.17"
        assert rings.segment.generation == 17
        other = RingPair.attach(rings.segment.share())
        RingEnd(rings.in_).push([reference(5)])
        assert RingEnd(other.in_).pop(1) == [reference(5)]
        RingEnd(other.out).push([reference(6)])
        assert RingEnd(rings.out).pop(1) == [reference(6)]
        other.close()
        other.close()
        assert other.in_ == ffi.NULL


def test_rings_are_not_attached_to_anything_smaller(instance: Callable[[], str]) -> None:
    with Segment.create(instance(), "lane.0", 20_000, kind=lib.RL_SEGMENT_LANE) as segment:
        with pytest.raises(EnvironmentLacks, match="has 20480 bytes, but 45696 are needed"):
            RingPair.attach(segment.share())
        with open("/dev/zero", "rb") as zero, pytest.raises(EnvironmentLacks):
            RingPair.attach(os.dup(zero.fileno()))
