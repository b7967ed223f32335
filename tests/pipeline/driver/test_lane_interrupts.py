"""The lane sleeps until a card raises its interrupt, when nothing else can give it work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline._pipeline import ffi

from .lane_harness import BUFFERS, DROP, Harness

SECONDS = 60.0  # a run that must end earlier


class Armed:
    """A harness whose ports have interrupts. `arms` is how often each port was armed, `on_arm` what
    happens at that moment; `calls` is the descriptor that ends a run."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in harness.ports]
        self.calls = os.eventfd(0, os.EFD_NONBLOCK)
        self.arms = [0] * len(harness.ports)
        self.on_arm: Callable[[], None] = lambda: None
        self._callbacks = []
        for port, event in zip(harness.ports, self.events, strict=True):
            callback = ffi.callback("void(struct rl_port *)")(self._arm)
            self._callbacks.append(callback)
            port.c_port.arm, port.c_port.event = callback, event
        lane = harness.lane._lane
        lane.calls = self.calls
        lane.progress_at, lane.pause_after, lane.sleep_after, lane.deep_after = 1, 0, 0, 0
        lane.sleep_ns, lane.deep_sleep_ns = 1, 1000

    def _arm(self, port) -> None:
        self.arms[port.index] += 1
        self.on_arm()

    def run_until(self, ready: Callable[[], bool], first: Callable[[], None] | None = None) -> int:
        """Run the lane, with `first` meanwhile, and end it when `ready`. Returns what it moved."""

        def act() -> None:
            if first is not None:
                self.wait(lambda: self.asleep)
                first()
            self.wait(ready)
            os.eventfd_write(self.calls, 1)

        thread = threading.Thread(target=act)
        thread.start()
        began = time.monotonic()
        moved = self.harness.lane.run(SECONDS)
        thread.join()
        os.eventfd_read(self.calls)
        assert time.monotonic() - began < SECONDS, "the lane slept until the end of the run"
        return moved

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS / 2
        while not ready() and time.monotonic() < until:
            time.sleep(0.001)

    @property
    def asleep(self) -> bool:
        return self.harness.books.lane.sleeps > 0 and all(self.arms)

    def close(self) -> None:
        for fd in (*self.events, self.calls):
            os.close(fd)


@pytest.fixture
def armed() -> Iterator[Armed]:
    with Harness() as harness:
        made = Armed(harness)
        yield made
        made.close()


def answer_all(harness: Harness) -> None:
    for worker in harness.workers:
        worker.pop()
        worker.answer(DROP)
    harness.run_pass()


def test_an_interrupt_wakes_the_lane(armed: Armed) -> None:
    harness = armed.harness

    def frame() -> None:
        harness.ports[1].arrive(0, 1)
        os.eventfd_write(armed.events[1], 1)

    assert armed.run_until(lambda: harness.queue(1, 0).rx_packets == 1, frame) == 1
    answer_all(harness)


def test_a_frame_that_came_before_the_card_was_armed_is_not_forgotten(armed: Armed) -> None:
    harness = armed.harness
    armed.on_arm = lambda: harness.ports[0].arrive(0, 1) if armed.arms == [1, 0] else None
    assert armed.run_until(lambda: harness.queue(0, 0).rx_packets == 1) == 1
    answer_all(harness)


def test_a_card_is_armed_once_for_each_interrupt(armed: Armed) -> None:
    lane = armed.harness.lane._lane
    lane.empty_passes = 1000
    for _ in range(10):
        armed.harness.lane.run(0.0)
    assert armed.arms == [1, 1]
    os.eventfd_write(armed.events[0], 1)
    for _ in range(10):
        armed.harness.lane.run(0.0)
    assert armed.arms == [2, 1]


def test_while_a_worker_holds_something_the_lane_looks_after_each_sleep(armed: Armed) -> None:
    """A worker that answers wakes nobody."""
    harness = armed.harness
    harness.ports[0].arrive(0, 1)
    harness.run_pass()
    passes = harness.books.lane.passes
    armed.run_until(lambda: harness.books.lane.passes > passes + 200)
    assert harness.books.lane.passes > passes + 200
    answer_all(harness)


def test_a_frame_that_waits_for_a_free_buffer_is_taken_when_a_packet_is_sent(armed: Armed) -> None:
    """Its interrupt came before, and that a packet is sent raises none."""
    harness = armed.harness
    arriving, sending = harness.ports
    sending.completing = False
    arriving.arrive(0, BUFFERS)
    for _ in range(2 * BUFFERS // 64 + 10):
        harness.run_pass()
        harness.workers[0].pop()
        harness.workers[0].answer(1)
    assert len(sending.on_tx[0]) == BUFFERS
    assert harness.lane.memory.free_count == 0
    arriving.arrive(0, 1)

    def sent() -> None:
        sending.completing = True

    received = harness.queue(0, 0)
    armed.run_until(lambda: received.rx_packets == BUFFERS + 1, sent)
    assert received.rx_packets == BUFFERS + 1
    answer_all(harness)


@pytest.mark.parametrize("why", ["a port without interrupts", "not receiving", "a device model"])
def test_what_raises_no_interrupt_is_looked_at_after_each_sleep(armed: Armed, why: str) -> None:
    harness = armed.harness
    if why == "not receiving":
        harness.lane.receiving = False
    elif why == "a port without interrupts":
        harness.ports[1].c_port.arm = ffi.NULL
    else:
        step = ffi.callback("uint32_t(void *)")(lambda context: 0)
        harness.lane.add_step(int(ffi.cast("uintptr_t", step)), 0)
    harness.lane._lane.empty_passes = 1000
    harness.lane.run(0.01)
    assert armed.arms == [0, 0]
    assert harness.books.lane.sleeps > 0


def test_a_card_that_is_gone_wakes_nobody_and_keeps_nobody_awake(armed: Armed) -> None:
    """While no worker holds anything, one sleep lasts until the end of the run, or until the other
    card raises its interrupt."""
    harness = armed.harness
    harness.ports[0].c_port.event = -1
    harness.lane._lane.empty_passes = 1000
    slept = harness.books.lane.sleeps
    harness.lane.run(0.3)
    assert armed.arms == [1, 1]
    assert 1 <= harness.books.lane.sleeps - slept < 10

    def frame() -> None:
        harness.ports[1].arrive(0, 1)
        os.eventfd_write(armed.events[1], 1)

    assert armed.run_until(lambda: harness.queue(1, 0).rx_packets == 1, frame) == 1
    answer_all(harness)
