"""The bursts of a port on packet sockets, with the test in the place of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.packet import rings

from .fake_packet import (
    CSUM_NOT_READY,
    KERNEL,
    NOW,
    SENDING,
    TPID,
    USER,
    VLAN,
    WRONG,
    FakePacket,
)
from .port_harness import FRAME, RIGHT


@pytest.fixture
def packet(instance: Callable[[], str]) -> Iterator[FakePacket]:
    with FakePacket(instance(), queues=2) as made:
        yield made.start()


def test_a_frame_is_copied_when_the_kernel_hands_its_block_over(packet: FakePacket) -> None:
    kernel = packet.kernel(1)
    kernel.arrive(FRAME)
    assert packet.rx_burst(1) == []
    kernel.hand_over()
    assert packet.rx_burst(0) == []
    (ref,) = packet.rx_burst(1)
    assert (ref.offset, ref.length, ref.port, ref.flags) == (192, 100, 0, 0)
    assert (ref.rss_hash, ref.vlan_tci) == (0, 0)
    assert packet.frame(ref) == FRAME
    assert kernel.status(0) == KERNEL  # given back at once
    assert packet.rx_burst(2) == []  # the port has two queues
    packet.held(ref, 1)
    assert packet.residuals()["buffers"] == 0


def test_no_more_is_taken_than_asked_for_and_the_order_stays(packet: FakePacket) -> None:
    kernel = packet.kernel()
    for number in range(50):
        kernel.arrive(bytes([number]) * 60)
    kernel.hand_over()
    first = packet.rx_burst(n=20)
    assert kernel.status(0) == USER  # it still has frames
    second = packet.rx_burst(n=64)
    assert [packet.frame(ref)[0] for ref in first + second] == list(range(50))
    assert len(first) == 20
    assert kernel.status(0) == KERNEL
    assert packet.rx_burst() == []


def test_a_burst_goes_through_several_blocks_and_rings_go_round(packet: FakePacket) -> None:
    kernel, blocks = packet.kernel(), rings.Geometry.of(packet.config).blocks
    assert blocks == 16
    for round_ in range(3 * blocks // 4):
        for number in range(4):
            for part in range(3):
                kernel.arrive(bytes([round_, number, part]) * 20)
            kernel.hand_over()
        kernel.hand_over()  # a block without a frame is passed over
        refs = [packet.held(ref) for ref in packet.rx_burst()]
        assert [packet.frame(ref)[:3] for ref in refs] == [
            bytes([round_, number, part]) for number in range(4) for part in range(3)
        ]
        assert packet.tx_burst(refs) == 12
        assert len(kernel.send()) == 12
        assert packet.reclaim() == 12
    assert packet.residuals() == RIGHT


@pytest.mark.parametrize(
    ("status", "tag", "expected"),
    [(VLAN | TPID, (0x6123, 0x88A8), "88a86123"), (VLAN, (0x0007, 0), "81000007")],
)
def test_the_tag_that_the_kernel_took_out_is_put_back(
    packet: FakePacket, status: int, tag: tuple[int, int], expected: str
) -> None:
    packet.kernel().arrive(FRAME, status=status, tag=tag)
    packet.kernel().hand_over()
    (ref,) = packet.rx_burst()
    assert packet.frame(ref) == FRAME[:12] + bytes.fromhex(expected) + FRAME[12:]
    assert ref.flags == 0


def test_a_frame_that_fits_no_buffer_is_counted(packet: FakePacket) -> None:
    kernel = packet.kernel()
    kernel.arrive(bytes(1519), length=64000)  # cut by the filter
    kernel.arrive(bytes(1519))
    kernel.arrive(bytes(1515), status=VLAN)
    kernel.arrive(bytes(13))
    kernel.arrive(bytes(1518))
    kernel.arrive(bytes(1514), status=VLAN)
    kernel.hand_over()
    free = packet.memory.free_count
    refs = packet.rx_burst()
    assert [ref.length for ref in refs] == [1518, 1518]
    assert packet.memory.free_count == free - 2
    shown = packet.port.statistics()
    assert (shown["rx_oversize"], shown["rx_undersize"]) == (3, 1)
    assert packet.port.statistics() == shown  # it goes on counting
    for ref in refs:
        packet.held(ref)
    assert packet.residuals()["packets"] == 0


def test_a_burst_without_one_good_frame_ends(packet: FakePacket) -> None:
    for _ in range(2):
        packet.kernel().arrive(bytes(1519))
        packet.kernel().hand_over()
    assert packet.rx_burst() == []
    assert packet.kernel().status(1) == KERNEL


def test_checksums_are_completed_where_the_kernel_says_so(packet: FakePacket) -> None:
    frame = bytes.fromhex(
        "020000000002 020000000001 0800 4500001c00004000 40112635 0a4d0001 0a4d0002"
        "1388 0009 0008 1234"
    )
    packet.kernel().arrive(frame)
    packet.kernel().arrive(frame, status=CSUM_NOT_READY)
    packet.kernel().hand_over()
    as_it_is, completed = packet.rx_burst()
    assert packet.frame(as_it_is) == frame
    assert packet.frame(completed) == frame[:40] + bytes.fromhex("d7b0")


def test_times_are_those_of_the_kernel_and_never_run_back(packet: FakePacket) -> None:
    kernel, stamps = packet.kernel(), packet.c_port.stamps

    def arrive(*times: float) -> list[int]:
        for when in times:
            kernel.arrive(FRAME, when=when)
        kernel.hand_over()
        return [stamps[at] for at in range(len(packet.rx_burst()))]

    assert arrive(NOW, NOW + 0.5) == [NOW * 10**9, NOW * 10**9 + 500_000_000]
    assert arrive(NOW - 100) == [NOW * 10**9 + 500_000_000]  # the clock was set back
    clock = packet.port._clock
    packet.port._follow_clock(clock - 100 * 10**9)  # noticed: times go on
    assert arrive(NOW - 98) == [(NOW + 2) * 10**9]
    packet.port._follow_clock(clock + 7 * 10**9)
    assert arrive(NOW + 7) == [(NOW + 7) * 10**9]


def test_nothing_is_taken_without_a_free_buffer(packet: FakePacket) -> None:
    for _ in range(10):
        packet.kernel().arrive(FRAME)
    packet.kernel().hand_over()
    free, packet.memory.free_count = packet.memory.free_count, 4
    assert len(packet.rx_burst()) == 4
    assert packet.counters(0).rx_starved == 1
    packet.memory.free_count = free - 4
    assert len(packet.rx_burst()) == 6
    assert packet.counters(0).rx_starved == 1


def test_sent_packets_are_freed_when_the_kernel_gives_their_slots_back(packet: FakePacket) -> None:
    free, kernel = packet.memory.free_count, packet.kernel()
    assert packet.tx_burst([packet.packet(bytes([n]) * 60) for n in range(3)]) == 3
    assert kernel.calls() == 1
    assert packet.port.posted() == (0, 3)
    assert [frame[0] for frame in kernel.send(status=SENDING)] == [0, 1, 2]
    assert packet.reclaim() == 0
    kernel.mark(0, 0)
    assert packet.reclaim() == 1
    assert packet.memory.free_count == free - 2
    kernel.mark(2, 0)
    assert packet.reclaim() == 0  # in their order
    kernel.mark(1, 0)
    assert packet.reclaim() == 2
    assert kernel.calls() == 0  # nothing waited for a call
    assert (packet.counters(0).tx_packets, packet.counters(0).tx_bytes) == (3, 180)
    assert packet.residuals() == RIGHT


def test_what_the_kernel_did_not_take_is_offered_again(packet: FakePacket) -> None:
    kernel = packet.kernel()
    packet.tx_burst([packet.packet(bytes([n]) * 60) for n in range(5)])
    assert kernel.calls() == 1
    assert len(kernel.send(most=2)) == 2
    assert packet.reclaim() == 2
    assert kernel.calls() == 1
    assert [frame[0] for frame in kernel.send()] == [2, 3, 4]
    assert packet.reclaim() == 3
    assert kernel.calls() == 0
    assert packet.residuals() == RIGHT


def test_no_more_is_posted_than_there_are_slots(packet: FakePacket) -> None:
    refs = [packet.packet(FRAME) for _ in range(70)]
    assert packet.tx_burst(refs[:40]) == 40
    assert packet.tx_burst(refs[40:]) == 24
    assert packet.tx_burst(refs[64:]) == 0
    assert len(packet.kernel().send()) == 64
    assert packet.reclaim() == 64
    assert packet.tx_burst(refs[64:]) == 6
    assert len(packet.kernel().send()) == 6


def test_a_worker_without_a_queue_of_its_own_sends_on_another(packet: FakePacket) -> None:
    assert packet.tx_burst([packet.packet(FRAME)], queue=3) == 1
    assert packet.kernel(1).send() == [FRAME]
    assert packet.reclaim(queue=3) == 1
    assert packet.counters(1).tx_packets == 1


def test_a_tag_is_put_into_the_frame(packet: FakePacket) -> None:
    packet.tx_burst([packet.packet(FRAME, tag=0x6123)])
    assert packet.kernel().send() == [FRAME[:12] + bytes.fromhex("81006123") + FRAME[12:]]


def test_a_frame_longer_than_the_interface_sends_is_dropped_with_its_reason(
    packet: FakePacket,
) -> None:
    packet.port.mtu = 1000
    packet.port.link()
    tagged = bytes(12) + b"\x81\x00" + bytes(1004)
    refs = [packet.packet(frame) for frame in (bytes(1015), bytes(1014), tagged, tagged + b"x")]
    refs.append(packet.packet(bytes(1015), blank=True))
    refs.append(packet.packet(bytes(1014), tag=1))
    assert packet.tx_burst(refs) == 6
    assert [len(frame) for frame in packet.kernel().send()] == [1014, 1018, 1018]
    assert packet.reclaim() == 3
    assert packet.counters(0).drop_tx_too_long == 2
    assert packet.books.slots[0].blanks_lost == 1
    assert packet.residuals() == RIGHT


def test_a_slot_that_the_kernel_refuses_does_not_stop_the_others(packet: FakePacket) -> None:
    """The MTU became smaller a moment ago."""
    kernel = packet.kernel()
    frames = [bytes([n]) * (60 + n) for n in range(5)]
    packet.tx_burst([packet.packet(frame) for frame in frames])
    assert kernel.send(most=2) == frames[:2]
    assert kernel.send(status=WRONG) == [frames[2]]
    assert kernel.calls() == 1
    assert packet.reclaim() == 2
    assert kernel.calls() == 1
    assert packet.port.posted() == (0, 2)
    assert kernel.send(most=1) == [frames[3]]
    assert kernel.send(status=WRONG) == [frames[4]]
    assert packet.reclaim() == 1
    assert packet.port.posted() == (0, 0)
    assert packet.counters(0).drop_tx_too_long == 2
    packet.tx_burst([packet.packet(FRAME)])
    assert kernel.send() == [FRAME]
    assert packet.reclaim() == 1
    assert packet.residuals() == RIGHT


def test_a_stop_returns_every_buffer(packet: FakePacket) -> None:
    packet.tx_burst([packet.packet(FRAME), packet.packet(FRAME, blank=True)])
    packet.port.up = False  # nothing is sent any more: it does not wait
    packet.port.stop()
    assert packet.port.posted() == (0, 0)
    assert packet.memory.free_count == 512
    assert packet.counters(0).drop_tx_down == 1
    assert packet.books.slots[0].blanks_lost == 1
    assert packet.residuals() == RIGHT


def test_a_queue_that_the_port_does_not_have_is_left_alone(packet: FakePacket) -> None:
    """The third queue of the struct, as if a frame were on its ring."""
    free, other = packet.memory.free_count, packet.port._c.queues[2]
    buffers = ffi.new("uint32_t[]", [7])
    other.buffers, other.slots, other.own = buffers, packet.port._c.queues[0].slots, 1
    assert packet.port.posted() == (0, 0)
    packet.port.stop()
    assert (other.done, other.taken, other.own) == (0, 0, 1)
    assert packet.memory.free_count == free
    other.own = 0


def test_the_frames_of_every_queue_are_counted(packet: FakePacket) -> None:
    packet.tx_burst([packet.packet(FRAME)], 1)
    assert packet.port.posted() == (0, 1)


def test_no_block_is_open_when_the_kernel_has_handed_over_all(packet: FakePacket) -> None:
    kernel, queue = packet.kernel(), ffi.addressof(packet.port._c.queues, 0)
    kernel.arrive(FRAME)
    is_open = ffi.new("uint32_t *", 9)
    assert lib.rl_packet_unread(queue, is_open) == 1
    assert is_open[0] == 1
    for block in range(queue.block_count):
        kernel._block, kernel._frames = block, 0
        kernel._write(USER)
    is_open[0] = 9
    assert lib.rl_packet_unread(queue, is_open) == 0
    assert is_open[0] == 0


def test_a_stop_waits_for_what_is_still_sent(packet: FakePacket) -> None:
    packet.tx_burst([packet.packet(FRAME)])
    packet.kernel().send()
    packet.port.stop()
    assert (packet.counters(0).tx_packets, packet.counters(0).drop_tx_down) == (1, 0)


def test_frames_that_were_never_read_are_counted(packet: FakePacket) -> None:
    kernel = packet.kernel(1)
    for count in (7, 3, 2):
        for _ in range(count):
            kernel.arrive(FRAME)
        if count != 2:
            kernel.hand_over()
    is_open = ffi.new("uint32_t *")
    place = ffi.addressof(packet.port._c.queues, 1)
    assert (lib.rl_packet_unread(place, is_open), is_open[0]) == (12, 2)
    assert len(packet.rx_burst(1, n=4)) == 4
    assert (lib.rl_packet_unread(place, is_open), is_open[0]) == (8, 2)
    assert len(packet.rx_burst(1, n=5)) == 5
    assert (lib.rl_packet_unread(place, is_open), is_open[0]) == (3, 2)
    packet.port.limits = packet.port.limits.share(1000)
    packet.port.stop_receiving()  # the kernel never hands the last block over
    packet.port.stop()
    assert packet.port.statistics()["rx_queue1_dropped"] == 3
