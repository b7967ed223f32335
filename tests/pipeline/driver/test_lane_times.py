"""The lane says when each packet came, to a worker whose plugin wants to know."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.driver import lane as lane_module

from .fake_port import FakePort
from .lane_harness import Harness

CAPACITY: int = lib.RL_RING_CAPACITY
HOUR = 3_600_000_000_000
SLACK = 1_000_000  # ns: two clocks are not read at the same moment


def times_of(harness: Harness, queue: int = 0) -> list[int]:
    """The times of the packets that are on `in`, blanks included."""
    in_ = harness.workers[queue].in_
    times = segment_of(harness, queue).times
    return [times.of[at % CAPACITY] for at in range(in_.consumer, in_.producer)]


def segment_of(harness: Harness, queue: int = 0) -> Any:
    rings = harness.lane._rings[queue].segment
    return ffi.cast("struct rl_rings_segment *", rings.address)


class StampingPort:
    """Lets a fake port hand over times of its own: those in `stamps`, in order."""

    def __init__(self, port: FakePort, stamps: list[int]) -> None:
        self._port, self._left = port, list(stamps)
        self._burst = ffi.new("int64_t[]", 64)
        self._inner = port.c_port.rx_burst
        self._outer = ffi.callback(
            "uint32_t(struct rl_port *, uint32_t, struct rl_reference *, uint32_t)", self._receive
        )
        port.c_port.rx_burst, port.c_port.stamps = self._outer, self._burst

    def _receive(self, port: Any, queue: int, refs: Any, n: int) -> int:
        taken: int = self._inner(port, queue, refs, n)
        for i in range(taken):
            self._burst[i] = self._left.pop(0)
        return taken


def test_a_packet_has_the_time_when_the_driver_took_it(harness: Harness) -> None:
    before = time.time_ns()
    harness.ports[0].arrive(0, 10)
    harness.run_pass()
    between = time.time_ns()
    harness.ports[1].arrive(0, 5)
    harness.run_pass()
    after = time.time_ns()
    times = times_of(harness)
    assert len(times) == 15
    assert len(set(times[:10])) == 1, "one burst has one time"
    assert before - SLACK <= times[0] <= between + SLACK
    assert between - SLACK <= times[10] <= after + SLACK
    assert times == sorted(times)


def test_times_never_run_back_when_the_clock_of_the_machine_does(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lane_module.wall_offset()

    def receive_with_clock_at(shift: int) -> int:
        monkeypatch.setattr(lane_module, "wall_offset", lambda: real + shift)
        harness.lane.follow_clock()
        harness.ports[0].arrive(0, 1)
        harness.run_pass()
        return times_of(harness)[-1] - time.monotonic_ns() - real

    assert abs(receive_with_clock_at(0)) < HOUR / 60
    assert abs(receive_with_clock_at(-HOUR)) < HOUR / 60  # set back: not followed
    assert abs(receive_with_clock_at(HOUR) - HOUR) < HOUR / 60
    assert abs(receive_with_clock_at(0) - HOUR) < HOUR / 60
    assert times_of(harness) == sorted(times_of(harness))
    assert segment_of(harness).times.offset == harness.lane._lane.clock_offset == real + HOUR


def test_a_worker_that_reads_no_times_gets_none(harness: Harness) -> None:
    segment_of(harness).times.unwanted = 7
    harness.ports[0].arrive(0, 10)
    harness.run_pass()
    assert times_of(harness) == [0] * 10


def test_a_hostile_worker_changes_no_other_memory() -> None:
    """The whole segment is full of its bytes, but for the words without which nothing moves."""
    with Harness(buffers=4000) as harness:
        rings = harness.lane._rings[0].segment
        worker, segment = harness.workers[0], segment_of(harness)
        own = {"in": getattr(segment, "in"), "out": segment.out}
        begin, end = lib.RL_HEADER_BYTES, rings.used
        rings.memory[begin:end] = b"\xa5" * (end - begin)
        segment.times.unwanted = 0
        for ring in own.values():
            ring.producer = ring.consumer = ring.sleeping = 0
        offset = ffi.offsetof("struct rl_rings_segment", "times")
        inside = ffi.offsetof("struct rl_times", "of")
        for _ in range(20):
            harness.ports[0].arrive(0, 64)
            harness.run_pass()
            worker.pop()
            worker.answer(1)
        harness.run_pass(2)
        times = bytes(rings.memory[offset:end])
        stamped = times[inside:]
        assert b"\xa5" * 8 not in stamped, "every place of the array was used"
        assert times[4:inside] == b"\xa5" * (inside - 4)
        out = ffi.offsetof("struct rl_rings_segment", "out")
        guard = bytes(rings.memory[out - 64 : out])
        assert guard == b"\xa5" * 64


def test_carried_times_never_run_back(harness: Harness) -> None:
    harness.ports[0].arrive(0, 6)
    harness.run_pass()
    [came] = set(times_of(harness))
    times = segment_of(harness).times
    times.of[1] = came - HOUR
    times.of[2] = came + HOUR
    times.of[4] = -(1 << 63)
    settled = harness.renew(0)
    assert settled.carried == 6
    carried = times_of(harness)
    assert carried[:2] == [came, came]
    assert carried == sorted(carried)
    assert carried[-1] <= time.time_ns() + SLACK
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    assert times_of(harness) == sorted(times_of(harness))


def test_packets_carried_from_a_worker_without_times_get_the_time_of_the_takeover(
    harness: Harness,
) -> None:
    segment_of(harness).times.unwanted = 1
    harness.ports[0].arrive(0, 3)
    harness.run_pass()
    before = time.time_ns()
    harness.renew(0)
    assert all(before - SLACK <= each <= time.time_ns() + SLACK for each in times_of(harness))


def test_the_times_of_a_port_are_taken_as_they_are(harness: Harness) -> None:
    stamps = [HOUR + 10 * i for i in range(70)] + [5]  # the last runs back, as in its capture
    port = StampingPort(harness.ports[0], stamps)
    harness.renew(0)  # a port has its stamps before the first worker comes
    assert segment_of(harness).times.stamped == 1
    harness.ports[0].arrive(0, 71)
    harness.run_pass(2)
    assert times_of(harness) == stamps
    assert segment_of(harness).times.last == 5
    harness.renew(0)
    assert times_of(harness) == stamps
    del port


def test_blanks_do_not_shift_the_times_of_packets() -> None:
    with Harness(blanks=5) as harness:
        port = StampingPort(harness.ports[0], list(range(100, 110)))
        harness.renew(0)
        harness.run_pass()  # grants blanks
        harness.ports[0].arrive(0, 10)
        harness.run_pass()
        in_ = harness.workers[0].in_
        packets = [
            when
            for at, when in enumerate(times_of(harness))
            if not in_.entries[at].flags & lib.RL_FLAG_BLANK
        ]
        assert packets == list(range(100, 110))
        del port
