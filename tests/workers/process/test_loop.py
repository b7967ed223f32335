"""The guarantees of loop.c; the test takes the place of the driver."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks
from ringline.shm.rings import RingEnd
from ringline.workers.process.engine import DRAINED, FAULT, TURN, Engine
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context, Tier
from ringline.workers.worker import Worker, private_slot

DROP: int = lib.RL_VERDICT_DROP
BLANK: int = lib.RL_FLAG_BLANK
BATCH: int = lib.RL_BATCH_MAX
CAPACITY: int = lib.RL_RING_CAPACITY
BUFFERS = 64
TURN_TICKS = 200_000  # about 0.1 ms: most tests wait for turns


class LoopHarness:
    """A worker's loop on rings in private memory; `in_` and `out` are the driver's ends."""

    def __init__(self, tier: Tier | None = None, **how: bool) -> None:
        if tier is None:
            tier = loading.load("ringline.workers.plugins.mac_swap:mac_swap")
        tier.accept({})
        tier.prepare(Context())
        self.slot = private_slot(4096)
        worker = Worker(self.slot, queue=0, ports=["a", "b"], options={})
        tier.setup(worker)
        self.rings = ffi.new("struct rl_rings_segment *")
        self._memory = mmap.mmap(-1, BUFFERS * lib.RL_BUFFER_STRIDE)
        in_, out = ffi.addressof(self.rings, "in"), ffi.addressof(self.rings, "out")
        self.in_, self.out = RingEnd(in_), RingEnd(out)
        self.engine = Engine(
            tier,
            worker,
            counters=self.slot.counters,
            in_=in_,
            out=out,
            times=ffi.addressof(self.rings, "times"),
            memory=int(ffi.cast("uintptr_t", ffi.from_buffer(self._memory))),
            view=memoryview(self._memory),
            **how,
        )
        self.engine.loop.turn_ticks = TURN_TICKS

    def put(self, first: int, n: int, flags: int = 0) -> int:
        """Push `n` packets with the hashes `first`, `first` + 1, …, or blanks, whose length is 0;
        return how many fitted."""
        length = 0 if flags & BLANK else 60
        return self.in_.push(
            [(i % BUFFERS, 192, length, i, 0, 0, flags) for i in range(first, first + n)]
        )

    def settle(self) -> None:
        """Run turns until every pushed packet has been processed."""
        in_ = getattr(self.rings, "in")
        while in_.consumer != in_.producer:
            assert self.engine.run() == TURN
        assert self.engine.run() == TURN

    def take(self) -> list[Any]:
        """Return everything on `out`."""
        taken: list[Any] = []
        while more := self.out.pop(BATCH):
            taken += more
        return taken

    def in_the_worker(self) -> int:
        """Return the number of references popped from `in` and not yet on `out`."""
        rings = self.rings
        return int(getattr(rings, "in").consumer) - int(rings.out.producer)


class PythonTier(Tier):
    """A minimal batch tier: `judge` is `process`."""

    def __init__(self, judge: Callable[[Any], None]) -> None:
        super().__init__("judge", ())
        self.process = judge  # type: ignore[method-assign]  # as BatchTier does


def swap(batch: Any) -> None:
    for packet in batch:
        packet.verdict = packet.port


@given(st.lists(st.integers(0, 200), min_size=1, max_size=12), st.booleans(), st.data())
def test_everything_comes_back_in_order(
    pushes: list[int], in_python: bool, data: st.DataObject
) -> None:
    loop = LoopHarness(PythonTier(swap) if in_python else None, busy=True)
    pushed, taken = 0, []
    for n in pushes:
        pushed += loop.put(pushed, n)
        if data.draw(st.booleans()):
            assert loop.engine.run() == TURN
        if data.draw(st.booleans()):
            taken += loop.take()
    loop.engine.stop()
    while loop.engine.run() != DRAINED:
        taken += loop.take()
    taken += loop.take()
    assert [reference[3] for reference in taken] == list(range(pushed))
    assert {reference[5] for reference in taken} <= {0}
    assert loop.slot.counters.packets == loop.slot.counters.forwarded == pushed
    assert loop.slot.counters.bytes == 60 * pushed


@given(st.booleans())
def test_at_most_one_batch_is_in_the_worker(in_python: bool) -> None:
    """With `in` full, and with `out` full: so a crash loses at most one batch."""
    most = 0

    def watch(batch: Any) -> None:
        nonlocal most
        most = max(most, loop.in_the_worker())
        swap(batch)

    loop = LoopHarness(PythonTier(watch) if in_python else None, busy=True)
    pushed = 0
    for _ in range(3):
        pushed += loop.put(pushed, CAPACITY)
        for _ in range(CAPACITY // BATCH + 1):
            assert loop.engine.run() == TURN
        assert loop.in_the_worker() <= BATCH
    assert most <= BATCH
    assert pushed > CAPACITY
    assert loop.in_the_worker() > 0
    assert loop.slot.counters.out_waits > 0
    assert len(loop.take()) == CAPACITY


def test_turns_come_when_the_peer_is_silent() -> None:
    for how in ({}, {"busy": True}, {"yielding": True}):
        loop = LoopHarness(**how)
        assert loop.engine.run() == TURN  # `in` is empty
        loop.put(0, CAPACITY)
        loop.settle()
        loop.put(CAPACITY, BATCH)
        assert loop.engine.run() == TURN  # `out` is full
        assert loop.slot.counters.heartbeat > 0


def test_turns_come_while_there_is_always_work() -> None:
    def again(batch: Any) -> None:
        loop.take()
        loop.put(0, len(batch))
        swap(batch)

    loop = LoopHarness(PythonTier(again))
    loop.put(0, BATCH)
    assert loop.engine.run() == TURN


def test_only_a_busy_worker_never_sleeps() -> None:
    for busy in (False, True):
        loop = LoopHarness(busy=busy)
        for _ in range(3):
            loop.engine.run()
        assert loop.slot.counters.sleeps <= 3 * 2, "a turn is over after two sleeps"
        assert (loop.slot.counters.sleeps == 0) == busy
        assert loop.slot.counters.idle_ticks > 0
        assert loop.slot.counters.busy_ticks == 0


def test_an_empty_ring_is_watched_before_the_first_sleep() -> None:
    """Waking a sleeping worker costs the driver a system call; a polling worker costs none."""
    loop = LoopHarness()
    loop.engine.loop.spin_ticks = 1 << 60
    for _ in range(3):
        loop.engine.run()
    assert loop.slot.counters.sleeps == 0
    loop.engine.loop.spin_ticks = 0
    loop.engine.run()
    assert 1 <= loop.slot.counters.sleeps <= 2


@pytest.mark.parametrize("in_python", [False, True])
def test_all_time_is_busy_or_idle_and_the_plugins_time_is_a_part(in_python: bool) -> None:
    began = ticks()
    loop = LoopHarness(PythonTier(swap) if in_python else None, busy=True)
    first, counters = loop.engine.loop.last, loop.slot.counters
    assert began <= first <= ticks()
    assert loop.engine.run() == TURN
    assert counters.busy_ticks == counters.plugin_ticks == 0
    loop.put(0, 3)
    loop.settle()
    last = loop.engine.loop.last
    assert counters.busy_ticks + counters.idle_ticks == last - first
    assert counters.heartbeat == last
    assert 0 < counters.plugin_ticks <= ticks() - first
    assert counters.busy_ticks > 0
    busy = counters.busy_ticks
    assert loop.engine.run() == TURN
    assert counters.busy_ticks == busy, "an empty pass is idle"


def test_packets_batches_and_verdicts_are_counted_once() -> None:
    def judge(batch: Any) -> None:
        for number, packet in enumerate(batch):
            packet.verdict = [0, 1, DROP, 77][number % 4]

    loop = LoopHarness(PythonTier(judge), busy=True)
    counters = loop.slot.counters
    for n in (4, 8):
        loop.put(0, n)
        loop.settle()
    assert (counters.packets, counters.bytes, counters.batches) == (12, 12 * 60, 2)
    assert (counters.forwarded, counters.dropped) == (6, 3)
    assert counters.verdict_errors + counters.plugin_errors == 3
    assert (counters.created, counters.out_waits) == (0, 0)
    assert [reference[5] for reference in loop.take()] == [0, 1, DROP, 254] * 3
    loop.put(0, 5, BLANK)
    loop.settle()
    assert (counters.packets, counters.bytes, counters.batches) == (12, 12 * 60, 2)


def test_a_full_out_ring_is_one_wait_until_it_has_room() -> None:
    loop = LoopHarness(busy=True)
    loop.put(0, CAPACITY)
    loop.settle()
    assert loop.slot.counters.out_waits == 0
    loop.put(0, CAPACITY)
    for _ in range(3):
        assert loop.engine.run() == TURN
    assert loop.slot.counters.packets == CAPACITY + BATCH
    assert loop.slot.counters.out_waits == 1
    assert len(loop.take()) == CAPACITY
    assert loop.put(0, BATCH) == BATCH  # one batch more than `out` has room for
    loop.settle()
    assert loop.slot.counters.out_waits == 2


def test_an_index_out_of_range_is_a_fault() -> None:
    for ring, field in (("in", "producer"), ("out", "consumer")):
        loop = LoopHarness()
        loop.put(0, BATCH)
        setattr(getattr(loop.rings, ring), field, CAPACITY + 5)
        if ring == "out":
            assert loop.engine.run() == TURN  # it had room by the last index that it read
            loop.put(0, CAPACITY)
        assert loop.engine.run() == FAULT


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=10))
def test_blanks_are_kept_and_come_back_at_the_end(pushes: list[tuple[bool, int]]) -> None:
    loop = LoopHarness(busy=True)
    packets = blanks = 0
    for blank, n in pushes:
        if blank:
            blanks += loop.put(10_000 + blanks, n, BLANK)
        else:
            packets += loop.put(packets, n)
    loop.settle()
    first = loop.take()
    assert [reference[3] for reference in first] == list(range(packets))
    loop.engine.stop()
    while loop.engine.run() != DRAINED:
        pass
    returned = loop.take()
    assert sorted(reference[3] for reference in returned) == [10_000 + i for i in range(blanks)]
    assert all(reference[5] == DROP and reference[6] & BLANK for reference in returned)
    assert loop.slot.counters.packets == packets
    assert loop.slot.counters.bytes == 60 * packets
    assert loop.slot.counters.created == 0


def test_more_blanks_than_the_stash_holds_go_straight_back() -> None:
    loop = LoopHarness()
    for round_ in range(2):
        loop.put(round_ * CAPACITY, CAPACITY, BLANK)
        loop.settle()
    assert len(loop.take()) == CAPACITY
    assert loop.engine.loop.batch.blank_count == CAPACITY


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), min_size=1, max_size=40))
def test_every_packet_keeps_its_time(pushes: list[tuple[bool, int]]) -> None:
    """Beside blanks, which have none, and across the end of the ring."""
    seen: list[tuple[int, int]] = []

    def watch(batch: Any) -> None:
        seen.extend((packet.rss_hash, packet.time) for packet in batch)
        assert [packet.time for packet in batch] == list(batch.times)

    tier = PythonTier(watch)
    tier.reads_times = True
    loop = LoopHarness(tier, busy=True)
    assert not loop.rings.times.unwanted
    pushed = 0
    for blank, n in pushes:
        for i in range(n):
            loop.rings.times.of[(loop.in_.end.own + i) % CAPACITY] = (
                -1 if blank else 1000 + pushed + i
            )
        assert loop.put(pushed, n, BLANK if blank else 0) == n
        pushed += 0 if blank else n
        loop.settle()
        loop.take()
    assert seen == [(number, 1000 + number) for number in range(pushed)]
    assert loop.engine.loop.last_time == (1000 + pushed - 1 if pushed else 0)


def test_a_plugin_that_reads_no_times_says_so() -> None:
    loop = LoopHarness(busy=True)
    assert loop.rings.times.unwanted == 1
    assert loop.engine.loop.batch.times == ffi.NULL


def test_packets_that_a_failing_batch_made_are_not_sent() -> None:
    def fail(batch: Any) -> None:
        assert batch.create(b"x" * 60, 1)
        raise ValueError("after all")

    loop = LoopHarness(PythonTier(fail))
    loop.put(100, 1, BLANK)
    loop.put(0, 3)
    loop.settle()
    verdicts = [(reference[3], reference[5]) for reference in loop.take()]
    assert verdicts == [(0, 254), (1, 254), (2, 254), (100, DROP)]
    assert "after all" in (loop.engine.complaint() or "")
    assert loop.engine.complaint() is None


@pytest.mark.parametrize("beside", [0, 77], ids=["good packets beside it", "bad packets beside it"])
@pytest.mark.parametrize("wrong", [2, 77, 253])
def test_the_verdict_of_a_created_packet_is_checked_too(wrong: int, beside: int) -> None:
    """A plugin in C can change the port of a packet after rl_create has checked it."""

    def judge(batch: Any) -> None:
        for _ in range(3):
            assert batch.create(b"x" * 60, 1)
        loop.engine.loop.packets[len(batch) + 1].port = wrong
        for packet in batch:
            packet.verdict = beside

    loop = LoopHarness(PythonTier(judge))
    loop.put(100, 3, BLANK)
    loop.put(0, 2)
    loop.settle()
    judged = 254 if beside else 0
    assert [reference[5] for reference in loop.take()] == [judged, judged, 1, 254, 1]
    assert loop.slot.counters.created == 2
    assert loop.slot.counters.verdict_errors == (2 if beside else 0)
