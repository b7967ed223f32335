"""The bursts of a port on AF_XDP, with the test in the place of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline._pipeline import lib
from ringline.pipeline.configuration.config import XdpConfig
from ringline.shm.errors import Bug, ConfigurationError

from .fake_xdp import HEADROOM, LEAD, STRIDE, FakeXdp, chunk
from .port_harness import FRAME, RIGHT


@pytest.fixture
def xdp(instance: Callable[[], str]) -> Iterator[FakeXdp]:
    with FakeXdp(instance(), queues=2) as made:
        yield made.start()


def test_a_start_posts_a_buffer_for_every_descriptor(xdp: FakeXdp) -> None:
    buffers = xdp.posted_buffers(0) + xdp.posted_buffers(1)
    assert len(set(buffers)) == 2 * 64
    assert xdp.port.posted() == (128, 0)
    assert xdp.residuals() == RIGHT


def test_a_reference_names_what_arrived_and_another_buffer_is_posted(xdp: FakeXdp) -> None:
    buffer = xdp.posted_buffers(1)[5]
    xdp.arrive(buffer, FRAME, queue=1)
    assert xdp.rx_burst(0) == []
    (ref,) = xdp.rx_burst(1)
    assert (ref.buffer, ref.offset, ref.length) == (buffer, HEADROOM - LEAD, 100)
    assert (ref.port, ref.flags, ref.rss_hash, ref.vlan_tci) == (0, 0, 0, 0)
    assert xdp.frame(ref) == FRAME
    (fresh,) = xdp.posted_buffers(1)
    assert fresh != buffer
    assert xdp.ledger[fresh] == lib.RL_HOLDER_CARD_RX << 28
    xdp.held(ref, 1)
    assert xdp.port.posted() == (128, 0)


def test_no_more_is_taken_than_asked_for_and_the_order_stays(xdp: FakeXdp) -> None:
    for number, buffer in enumerate(xdp.posted_buffers()[:50]):
        xdp.arrive(buffer, bytes([number]) * 60)
    first, second = xdp.rx_burst(n=20), xdp.rx_burst(n=64)
    assert [xdp.frame(ref)[0] for ref in first + second] == list(range(50))
    assert len(first) == 20
    assert xdp.port.kernel[0]["rx"].words[1] == 50  # the kernel may use these entries again
    assert xdp.rx_burst() == []


def test_rings_go_round(xdp: FakeXdp) -> None:
    """Three times round every ring: what arrives is sent."""
    buffers = xdp.posted_buffers()
    for round_ in range(12):
        for number in range(16):
            xdp.arrive(buffers.pop(0), bytes([round_, number]) * 30)
        refs = [xdp.held(ref) for ref in xdp.rx_burst()]
        assert len(refs) == 16
        assert xdp.tx_burst(refs) == 16
        sent = xdp.sent()
        assert [frame[:2] for _, frame in sent] == [bytes([round_, n]) for n in range(16)]
        for address, _ in sent:
            xdp.complete(address)
        assert xdp.reclaim() == 16
        assert xdp.port.kernel[0]["completion"].words[1] == 16 * (round_ + 1)
        buffers += xdp.posted_buffers()
    assert xdp.residuals() == RIGHT


@pytest.mark.parametrize("address", [chunk(5000), chunk(512), (1 << 48) - 1, chunk(300), 0, 4031])
def test_an_address_that_was_not_posted_is_skipped(xdp: FakeXdp, address: int) -> None:
    (buffer, *_) = xdp.posted_buffers()
    xdp.give_address(address, 60)
    xdp.arrive(buffer, FRAME)
    xdp.arrive(buffer, FRAME)  # a second time: it is not posted any more
    (ref,) = xdp.rx_burst()
    assert ref.buffer == buffer
    xdp.held(ref)
    assert xdp.rx_burst() == []


def test_a_buffer_of_another_queue_is_skipped(xdp: FakeXdp) -> None:
    xdp.arrive(xdp.posted_buffers(1)[0], FRAME, queue=0)
    assert xdp.rx_burst(0) == []


def test_a_frame_that_is_too_long_is_counted_and_its_buffer_posted_again(xdp: FakeXdp) -> None:
    one, other, *_ = xdp.posted_buffers()
    xdp.arrive(one, FRAME, length=1519)
    xdp.arrive(other, FRAME, length=1518)
    (ref,) = xdp.rx_burst()
    assert ref.length == 1518
    xdp.held(ref)
    count = xdp.counters(0)
    assert (count.rx_packets, count.drop_rx_error) == (2, 1)
    assert one in xdp.posted_buffers()
    intent = xdp.books.intent
    assert (intent.operation, intent.count, intent.buffers[0]) == (0, 1, one)
    assert intent.word == lib.RL_HOLDER_CARD_RX << 28
    assert xdp.residuals()["packets"] == 0


def test_nothing_is_taken_without_a_buffer_to_post(xdp: FakeXdp) -> None:
    for buffer in xdp.posted_buffers()[:10]:
        xdp.arrive(buffer, FRAME)
    free, xdp.memory.free_count = xdp.memory.free_count, 4
    assert len(xdp.rx_burst()) == 4
    assert xdp.counters(0).rx_starved == 1
    xdp.memory.free_count = free - 4
    assert len(xdp.rx_burst()) == 6


def test_sent_packets_are_freed_when_the_kernel_says_so(xdp: FakeXdp) -> None:
    free = xdp.memory.free_count
    refs = [xdp.packet(bytes([n]) * 60) for n in range(3)]
    assert xdp.tx_burst(refs) == 3
    sent = xdp.sent()
    assert [frame[0] for _, frame in sent] == [0, 1, 2]
    assert xdp.port.posted()[1] == 3
    xdp.complete(sent[1][0])
    assert xdp.reclaim() == 1
    assert xdp.memory.free_count == free - 2
    for address, _ in (sent[0], sent[2]):
        xdp.complete(address & (1 << 48) - 1)  # without its offset
    assert xdp.reclaim() == 2
    assert xdp.memory.free_count == free
    assert (xdp.counters(0).tx_packets, xdp.counters(0).tx_bytes) == (3, 180)
    assert xdp.residuals() == RIGHT


def test_a_completion_that_no_packet_waits_for_is_skipped(xdp: FakeXdp) -> None:
    xdp.tx_burst([xdp.packet(FRAME)])
    ((address, _),) = xdp.sent()
    xdp.complete(address + 7 * STRIDE)
    xdp.complete(address)
    xdp.complete(address)
    assert xdp.reclaim() == 1
    assert xdp.reclaim() == 0
    assert xdp.residuals() == RIGHT


def test_no_more_is_posted_than_the_completion_ring_has_room_for(xdp: FakeXdp) -> None:
    refs = [xdp.packet(FRAME) for _ in range(70)]
    assert xdp.tx_burst(refs[:40]) == 40
    first = xdp.sent()
    assert xdp.tx_burst(refs[40:]) == 24
    assert xdp.tx_burst(refs[64:]) == 0
    xdp.complete(first[0][0])
    assert xdp.reclaim() == 1
    assert xdp.tx_burst(refs[64:]) == 1


@pytest.mark.parametrize("offset", [0, 3, 4, 192, 256])
def test_a_tag_is_put_into_the_frame(xdp: FakeXdp, offset: int) -> None:
    ref = xdp.packet(FRAME, tag=0x6123)
    ref.offset = offset
    data = xdp.data(ref)
    for at, byte in enumerate(FRAME):
        data[at] = byte
    assert xdp.tx_burst([ref]) == 1
    ((_, frame),) = xdp.sent()
    assert frame == FRAME[:12] + bytes.fromhex("81006123") + FRAME[12:]


def test_a_system_call_is_made_only_when_the_kernel_waits_for_one(xdp: FakeXdp) -> None:
    tx = xdp.port.kernel[0]["tx"]
    xdp.tx_burst([xdp.packet(FRAME)])
    assert xdp.calls() == 0
    tx.ask_for_calls()
    xdp.tx_burst([xdp.packet(FRAME)])
    assert xdp.calls() == 1  # the kernel took nothing: no second try
    xdp.reclaim()
    assert xdp.calls() == 1  # packets are still to be sent
    xdp.sent()
    xdp.reclaim()
    assert xdp.calls() == 0  # all are with the kernel
    fill = xdp.port.kernel[0]["fill"]
    xdp.port.ends[0].send(b"x")
    xdp.rx_burst()
    fill.ask_for_calls()
    assert xdp.receive_calls_left(1) == 1
    xdp.port.ends[0].send(b"x")
    xdp.rx_burst()
    assert xdp.receive_calls_left(1) == 0


def test_busy_polling_makes_a_call_in_every_burst(instance: Callable[[], str]) -> None:
    with FakeXdp(instance(), xdp=XdpConfig(busy_poll_us=20)).start() as xdp:
        xdp.port.ends[0].send(b"x")
        xdp.rx_burst()
        assert xdp.receive_calls_left(1) == 0


def test_a_hash_is_given_only_when_it_is_asked_for(instance: Callable[[], str]) -> None:
    header = (
        bytes(12) + b"\x08\x00\x45" + bytes(8) + b"\x06\0\0" + bytes.fromhex("420995bba18e6450")
    )
    frame = header + (2794).to_bytes(2, "big") + (1766).to_bytes(2, "big") + bytes(20)
    with FakeXdp(instance(), xdp=XdpConfig(hash="software")).start() as xdp:
        one, other, *_ = xdp.posted_buffers()
        xdp.arrive(one, frame)
        xdp.arrive(other, bytes(60))
        with_hash, without = xdp.rx_burst()
        assert (with_hash.flags, with_hash.rss_hash) == (lib.RL_FLAG_HASH, 0x51CCC178)
        assert (without.flags, without.rss_hash) == (0, 0)


def test_checksums_are_written_only_when_that_is_asked_for(instance: Callable[[], str]) -> None:
    frame = bytes.fromhex(
        "020000000002 020000000001 0800 4500001c00004000 40110000 0a4d0001 0a4d0002"
        "1388 0009 0008 1234"
    )
    right = frame[:24] + bytes.fromhex("2635") + frame[26:40] + bytes.fromhex("d7b0")
    for fixing in (False, True):
        with FakeXdp(instance(), xdp=XdpConfig(fix_checksums=fixing)).start() as xdp:
            xdp.arrive(xdp.posted_buffers()[0], frame)
            (ref,) = xdp.rx_burst()
            assert xdp.frame(ref).hex() == (right if fixing else frame).hex()
            assert ref.flags == 0


def test_a_stop_returns_every_buffer(xdp: FakeXdp) -> None:
    xdp.tx_burst([xdp.packet(FRAME), xdp.packet(FRAME, blank=True)])
    xdp.port.up = False  # nothing is sent any more: it does not wait
    xdp.port.stop()
    assert xdp.port.posted() == (0, 0)
    assert xdp.memory.free_count == 512
    assert xdp.counters(0).drop_tx_down == 1
    assert xdp.books.slots[0].blanks_lost == 1
    assert xdp.residuals() == RIGHT
    with pytest.raises(Bug, match="cannot start again"):
        xdp.port.start()


def test_a_stop_waits_for_what_is_still_sent(xdp: FakeXdp) -> None:
    xdp.tx_burst([xdp.packet(FRAME)])
    ((address, _),) = xdp.sent()
    xdp.complete(address)
    xdp.port.stop()
    assert (xdp.counters(0).tx_packets, xdp.counters(0).drop_tx_down) == (1, 0)


def test_too_few_buffers_are_refused(instance: Callable[[], str]) -> None:
    with (
        FakeXdp(instance(), buffers=100, queues=2) as xdp,
        pytest.raises(ConfigurationError, match="port wan needs 2 x 64 = 128"),
    ):
        xdp.start()
