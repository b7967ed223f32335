"""The bursts of a port on a TAP, with the test in the place of the kernel."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.shm.errors import Bug

from .fake_tap import FakeTap
from .port_harness import FRAME, RIGHT

HEADROOM = 192
LONGEST = 1518
EMPTY_MAX = 64  # of tap.c


@pytest.fixture
def tap(instance: Callable[[], str]) -> Iterator[FakeTap]:
    with FakeTap(instance(), queues=2) as made:
        yield made.start()


def test_a_start_takes_no_buffer(tap: FakeTap) -> None:
    assert tap.memory.free_count == 512
    assert tap.port.posted() == (0, 0)
    assert tap.residuals() == RIGHT


def test_a_frame_arrives_in_a_buffer_of_its_own(tap: FakeTap) -> None:
    tap.arrive(FRAME, queue=1)
    assert tap.rx_burst(0) == []
    (ref,) = tap.rx_burst(1)
    assert (ref.offset, ref.length, ref.port) == (HEADROOM, 100, 0)
    assert (ref.flags, ref.rss_hash, ref.vlan_tci) == (0, 0, 0)
    assert tap.frame(ref) == FRAME
    assert tap.memory.free_count == 511
    assert ref.buffer not in list(tap.memory.free[0 : tap.memory.free_count])
    tap.held(ref, 1)
    assert tap.residuals() == RIGHT
    assert tap.rx_burst(2) == []  # the port has two queues


def test_no_more_is_taken_than_asked_for_and_the_order_stays(tap: FakeTap) -> None:
    for number in range(50):
        tap.arrive(bytes([number]) * 60)
    first, second = tap.rx_burst(n=20), tap.rx_burst(n=64)
    assert [tap.frame(ref)[0] for ref in first + second] == list(range(50))
    assert len(first) == 20
    assert tap.rx_burst() == []


def test_without_a_free_buffer_frames_stay_with_the_kernel(tap: FakeTap) -> None:
    free, tap.memory.free_count = tap.memory.free_count, 3
    for number in range(5):
        tap.arrive(bytes([number]) * 60)
    assert [tap.frame(ref)[0] for ref in tap.rx_burst()] == [0, 1, 2]
    assert tap.rx_burst() == []
    tap.memory.free_count = 0
    assert tap.rx_burst() == []
    tap.memory.free[0], tap.memory.free_count = tap.memory.free[free - 1], 1
    assert [tap.frame(ref)[0] for ref in tap.rx_burst()] == [3]


@pytest.mark.parametrize("length", [LONGEST + 1, 2048, 3000])
def test_a_frame_that_is_too_long_is_counted_and_dropped(tap: FakeTap, length: int) -> None:
    tap.arrive(bytes(length))
    tap.arrive(bytes(LONGEST))
    (ref,) = tap.rx_burst()
    assert ref.length == LONGEST
    tap.held(ref)
    assert tap.counters(0).drop_rx_error == 1
    assert tap.counters(0).rx_packets == 2
    assert tap.residuals() == RIGHT


def test_packets_are_sent_in_order_and_their_buffers_come_back(tap: FakeTap) -> None:
    refs = [tap.packet(bytes([number]) * (60 + number)) for number in range(20)]
    assert tap.tx_burst(refs, queue=1) == 20
    assert tap.sent(1) == [bytes([number]) * (60 + number) for number in range(20)]
    assert tap.sent(0) == []
    assert tap.port.posted() == (0, 20)
    assert tap.residuals() == RIGHT
    assert tap.reclaim(1) == 20
    assert tap.counters(1).tx_packets == 20
    assert tap.counters(1).tx_bytes == sum(range(60, 80))
    assert tap.counters(0).transmitted == 20
    assert tap.reclaim(1) == 0
    assert tap.residuals() == RIGHT


def test_a_queue_that_the_port_lacks_uses_one_that_it_has(tap: FakeTap) -> None:
    assert tap.tx_burst([tap.packet(FRAME)], queue=5) == 1
    assert tap.sent(1) == [FRAME]
    assert tap.reclaim(5) == 1


def test_the_tag_of_a_reference_is_sent_in_its_frame(tap: FakeTap) -> None:
    assert tap.tx_burst([tap.packet(FRAME, tag=0x2123), tap.packet(FRAME)]) == 2
    assert tap.sent() == [FRAME[:12] + bytes.fromhex("81002123") + FRAME[12:], FRAME]
    tap.reclaim()
    assert tap.counters(0).tx_bytes == 204


def test_the_port_takes_only_as_many_as_it_has_entries(tap: FakeTap) -> None:
    for round_ in range(5):  # several times round the list
        refs = [tap.packet(bytes([round_, number]) * 30) for number in range(80)]
        assert tap.tx_burst(refs) == 64
        assert tap.tx_burst(refs[64:]) == 0
        assert [frame[:2] for frame in tap.sent()] == [bytes([round_, n]) for n in range(64)]
        assert tap.reclaim() == 64
        assert tap.tx_burst(refs[64:]) == 16
        assert len(tap.sent()) == 16
        assert tap.reclaim() == 16
        assert tap.residuals() == RIGHT


def test_what_the_kernel_has_no_room_for_is_tried_again(tap: FakeTap) -> None:
    sent, frames = 0, []
    while sent % 32 == 0:  # until the socket is full
        refs = [tap.packet(sent.to_bytes(2, "big") + bytes(1498)) for _ in range(32)]
        now = tap.tx_burst(refs)
        tap.reclaim()
        sent += now
        assert sent < 2000
    left = refs[now:]
    frames += tap.sent()
    while left:
        now = tap.tx_burst(left)
        assert now > 0
        frames += tap.sent()
        left = left[now:]
        tap.reclaim()
    assert len(frames) == tap.counters(0).tx_packets
    assert tap.counters(0).drop_tx_down == 0
    assert tap.residuals() == RIGHT


def test_what_the_kernel_refuses_is_dropped_as_tx_down(tap: FakeTap) -> None:
    good = [tap.packet(FRAME) for _ in range(3)]
    assert tap.tx_burst(good) == 3
    tap.port.ends[0].close()
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN  # a write fails with EPIPE
    bad = [tap.packet(FRAME) for _ in range(70)]
    assert tap.tx_burst(bad[:35]) == 35
    assert tap.tx_burst(bad[35:]) == 26  # the list is full
    assert tap.reclaim() == 64
    assert tap.counters(0).tx_packets == 3
    assert tap.counters(0).drop_tx_down == 61
    assert tap.rx_burst() == []
    assert tap.residuals() == RIGHT


def test_a_packet_that_a_plugin_made_is_counted_as_a_blank(tap: FakeTap) -> None:
    assert tap.tx_burst([tap.packet(FRAME, blank=True)]) == 1
    assert tap.reclaim() == 1
    assert tap.books.slots[0].blanks_transmitted == 1
    assert tap.residuals() == RIGHT


def test_a_queue_that_stays_empty_rests(tap: FakeTap) -> None:
    tap.port._c.rest = 1 << 62
    for _ in range(EMPTY_MAX + 1):
        assert tap.rx_burst() == []
    tap.arrive(FRAME)
    assert tap.rx_burst() == []  # it rests
    tap.port._c.queues[0].rests_until = 0
    assert len(tap.rx_burst()) == 1
    tap.arrive(FRAME)
    assert len(tap.rx_burst()) == 1  # and does so no more


def test_a_rest_ends(tap: FakeTap) -> None:
    for _ in range(EMPTY_MAX + 2):
        assert tap.rx_burst() == []
    tap.arrive(FRAME)
    end = time.monotonic() + 60
    while not tap.rx_burst():
        assert time.monotonic() < end


def test_after_stop_receiving_frames_stay_with_the_kernel(tap: FakeTap) -> None:
    tap.port.stop_receiving()
    tap.arrive(FRAME)
    assert tap.rx_burst() == []
    assert tap.tx_burst([tap.packet(FRAME)]) == 1
    assert tap.sent() == [FRAME]
    tap.port.stop()
    assert tap.port.posted() == (0, 0)
    assert tap.counters(0).tx_packets == 1
    assert tap.residuals() == RIGHT


def test_a_scan_finds_every_buffer_of_the_list(tap: FakeTap) -> None:
    refs = [tap.packet(FRAME) for _ in range(5)]
    tap.tx_burst(refs[:3], queue=0)
    tap.tx_burst(refs[3:], queue=1)
    seen = ffi.new("uint8_t[]", 512)
    tap.port.scan(seen)
    assert {at for at in range(512) if seen[at]} == {ref.buffer for ref in refs}
    assert tap.ledger[refs[0].buffer] >> 28 == lib.RL_HOLDER_CARD_TX


def test_a_wrong_number_of_descriptors_is_a_bug(tap: FakeTap) -> None:
    with pytest.raises(Bug, match="has 2 queues, not 1"):
        tap.port.use_sockets([0])
