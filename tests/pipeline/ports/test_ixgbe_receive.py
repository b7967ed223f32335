"""The receive burst of the 82599, with descriptors that the test fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline._pipeline import ffi, lib

from .fake_card import EOP, IPCS, IPE, L4E, L4I, RDT, RXE, UNTOUCHED, VP, FakeCard, number

UDP = 1 << 9  # packet type, in the lower word
OK = lib.RL_FLAG_L3_OK | lib.RL_FLAG_L4_OK


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[FakeCard]:
    with FakeCard(instance(), queues=2) as card:
        yield card.start()


def test_a_reference_has_the_fields_of_the_descriptor(card: FakeCard) -> None:
    frame = number(7, 200)
    card.receive(frame, queue=1, status=EOP | VP | L4I | IPCS, low=0xCAFEF00D << 32 | 2, tag=0x6123)
    (ref,) = card.rx_burst(queue=1)
    assert card.frame(ref) == frame
    assert (ref.offset, ref.length) == (lib.RL_BUFFER_HEADROOM, 200)
    assert (ref.rss_hash, ref.port) == (0xCAFEF00D, 0)
    assert ref.flags == OK | lib.RL_FLAG_HASH
    assert card.rx_burst(queue=0) == []


@pytest.mark.parametrize(
    ("status", "low", "flags"),
    [
        (0, 0, 0),
        (0, 1, lib.RL_FLAG_HASH),
        (0, 15, lib.RL_FLAG_HASH),
        (IPCS, 0, lib.RL_FLAG_L3_OK),
        (IPCS | L4I, 0, OK),
        (IPCS | IPE, 0, lib.RL_FLAG_CHECKSUM_BAD),
        (IPCS | L4I | L4E, 1, lib.RL_FLAG_L3_OK | lib.RL_FLAG_CHECKSUM_BAD | lib.RL_FLAG_HASH),
        (IPCS | IPE | L4I, 0, lib.RL_FLAG_L4_OK | lib.RL_FLAG_CHECKSUM_BAD),
        (IPCS | L4I | L4E, UDP, lib.RL_FLAG_L3_OK),  # the packet may have no checksum (erratum)
        (L4E | IPE, 0, 0),  # errors without the bits for checks made are ignored
    ],
)
def test_flags(card: FakeCard, status: int, low: int, flags: int) -> None:
    card.receive(number(1), status=EOP | status, low=low)
    (ref,) = card.rx_burst()
    assert ref.flags == flags
    assert card.counters(0).drop_rx_error == 0


@pytest.mark.parametrize("strip", [False, True])
def test_a_tag_is_reported_only_when_tags_are_stripped(
    instance: Callable[[], str], strip: bool
) -> None:
    with FakeCard(instance(), vlan_strip=strip).start() as card:
        card.receive(number(1), status=EOP | VP, tag=0x6123)
        (ref,) = card.rx_burst()
        assert bool(ref.flags & lib.RL_FLAG_VLAN) is strip
        assert not strip or ref.vlan_tci == 0x6123


def test_every_descriptor_is_posted_again_and_the_tail_stays_one_behind(card: FakeCard) -> None:
    assert card.tail() == 63
    for n in range(10):
        card.receive(number(n))
    refs = card.rx_burst()
    assert card.tail() == 9
    fresh = set()
    for index in range(64):
        words = card.words(0, index)
        assert words[1] == 0
        offset = card.offset(words[0]) - card.packets.first_offset
        buffer, inside = divmod(offset, card.packets.stride)
        assert inside == lib.RL_BUFFER_HEADROOM
        assert card.ledger[buffer] == lib.RL_HOLDER_CARD_RX << 28
        fresh.add(buffer)
    assert len(fresh) == 64
    assert fresh.isdisjoint(ref.buffer for ref in refs)


def test_a_ring_goes_round_with_every_frame_in_order(card: FakeCard) -> None:
    expected = got = 0
    for size in (63, 1, 40, 64, 5, 63, 30) * 10:
        for _ in range(size):
            expected += card.receive(number(expected))
        for ref in card.rx_burst():
            assert card.frame(ref) == number(got)
            got += 1
            card.memory.free[card.memory.free_count] = ref.buffer
            card.memory.free_count += 1
            card.ledger[ref.buffer] = lib.RL_LEDGER_FREE_WORD
    assert got == expected > 600


def test_a_burst_takes_at_most_n_packets(card: FakeCard) -> None:
    for n in range(10):
        card.receive(number(n))
    assert [card.frame(ref) for ref in card.rx_burst(n=3)] == [number(n) for n in range(3)]
    assert card.tail() == 2
    assert card.rx_burst(n=0) == []
    assert len(card.rx_burst()) == 7


def test_no_doorbell_without_new_work(card: FakeCard) -> None:
    card.port.access.write32(RDT, UNTOUCHED)
    assert card.rx_burst() == []
    assert card.tail() == UNTOUCHED


def test_without_a_free_buffer_nothing_is_taken_and_no_descriptor_is_lost(
    instance: Callable[[], str],
) -> None:
    with FakeCard(instance(), buffers=64 + 5).start() as card:
        for n in range(20):
            card.receive(number(n))
        refs = [card.held(ref) for ref in card.rx_burst()]
        assert [card.frame(ref) for ref in refs] == [number(n) for n in range(5)]
        assert card.counters(0).rx_starved == 1
        assert card.rx_burst() == []
        assert card.counters(0).rx_starved == 2
        assert card.port.posted() == (64, 0)
        assert set(card.residuals().values()) == {0}
        assert card.tx_burst(refs) == 5
        card.transmit()
        assert card.reclaim() == 5
        assert len(card.rx_burst()) == 5


def test_starvation_is_not_counted_when_no_packet_waits(instance: Callable[[], str]) -> None:
    with FakeCard(instance(), buffers=64 + 5).start() as card:
        for n in range(5):
            card.receive(number(n))
        assert len(card.rx_burst()) == 5
        assert card.rx_burst() == []
        assert card.counters(0).rx_starved == 0


@pytest.mark.parametrize(
    ("status", "length"),
    [(EOP | RXE, 60), (EOP | 1 << 24, 60), (EOP, 2048), (EOP, 65535)],
    ids=["RXE", "CRC", "as long as a buffer", "longer than any"],
)
def test_a_frame_with_an_error_is_dropped_and_booked(
    card: FakeCard, status: int, length: int
) -> None:
    card.receive(number(1))
    card.receive(number(2), status=status, length=length)
    card.receive(number(3))
    assert [card.frame(ref) for ref in map(card.held, card.rx_burst())] == [number(1), number(3)]
    assert card.counters(0).drop_rx_error == 1
    assert card.counters(0).rx_packets == 3
    assert card.tail() == 2
    assert card.port.posted()[0] == 128
    assert set(card.residuals().values()) == {0}


def test_a_drop_is_an_intent_before_it_is_booked(card: FakeCard) -> None:
    """What a driver that is killed in the middle leaves behind; the record stays afterwards."""
    ring = ffi.cast("struct rl_card *", card.c_port.queues).rx[1]
    card.receive(number(1), queue=1)
    card.receive(number(2), queue=1, status=EOP | RXE)
    card.counters(1).drop_rx_error = 7
    buffer = ring.buffers[1]
    card.rx_burst(queue=1)
    intent, count = card.books.intent, card.counters(1)
    assert (intent.count, intent.buffers[0]) == (1, buffer)
    assert intent.word == card.ledger[buffer] == lib.RL_HOLDER_CARD_RX << 28
    for i, (field, before) in enumerate((("rx_packets", 0), ("drop_rx_error", 7))):
        place = int(ffi.cast("uintptr_t", ffi.addressof(count, field)))
        assert intent.counter[i] == place - int(ffi.cast("uintptr_t", card.books))
        assert intent.before[i] == before
        assert getattr(count, field) == before + 1
    assert intent.operation == 0


def test_nothing_but_errors_is_an_empty_burst_with_a_doorbell(card: FakeCard) -> None:
    for n in range(63):
        card.receive(number(n), status=EOP | RXE)
    assert card.rx_burst() == []
    assert card.tail() == 62
    assert card.receive(number(100))
    assert [card.frame(ref) for ref in card.rx_burst()] == [number(100)]


def test_dropped_errors_use_up_the_burst_and_are_not_starvation(card: FakeCard) -> None:
    for n in range(20):
        card.receive(number(n), status=EOP | RXE if n < 6 else EOP)
    assert [card.frame(ref) for ref in card.rx_burst(n=8)] == [number(6), number(7)]
    assert card.tail() == 7
    assert card.counters(0).rx_starved == 0


def test_a_frame_of_several_descriptors_is_one_drop(card: FakeCard) -> None:
    card.receive(number(1))
    card.receive(number(2), status=0)
    card.receive(number(2), status=0)
    assert [card.frame(ref) for ref in map(card.held, card.rx_burst())] == [number(1)]
    assert card.counters(0).drop_rx_error == 0  # the frame is not complete yet
    card.receive(number(2), status=EOP)
    card.receive(number(3))
    assert [card.frame(ref) for ref in map(card.held, card.rx_burst())] == [number(3)]
    assert card.counters(0).drop_rx_error == 1
    assert card.counters(0).rx_packets == 3
    assert set(card.residuals().values()) == {0}


def test_an_incomplete_frame_is_forgotten_by_a_stop(card: FakeCard) -> None:
    card.receive(number(1), status=0)
    assert card.rx_burst() == []
    card.port.stop()
    card.start()
    card.receive(number(2))
    assert [card.frame(ref) for ref in card.rx_burst()] == [number(2)]


def test_old_content_of_descriptors_is_not_taken_for_completed(
    instance: Callable[[], str],
) -> None:
    with FakeCard(instance()) as card:
        memory = card.descriptors.segment.memory
        memory[4096:] = b"\xff" * (len(memory) - 4096)
        card.start()
        assert card.rx_burst() == []
        assert card.reclaim() == 0


def test_buffers_in_unordered_pages(instance: Callable[[], str]) -> None:
    with FakeCard(instance(), pages=14).start() as card:
        for n in range(200):
            assert card.receive(number(n, 1000))
            (ref,) = card.rx_burst()
            assert card.frame(ref) == number(n, 1000)
