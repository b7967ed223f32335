"""The transmit burst of the 82599 and its completion, with descriptors that the test reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline._pipeline import lib

from .fake_card import RS, SECRXSTAT, TDBAL, TDT, UNTOUCHED, FakeCard, Sent, number


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[FakeCard]:
    with FakeCard(instance(), queues=2) as card:
        yield card.start()


def packets(card: FakeCard, count: int, first: int = 0) -> list:
    return [card.packet(number(first + n, 60 + n)) for n in range(count)]


def frames(count: int, first: int = 0) -> list[Sent]:
    return [Sent(number(first + n, 60 + n), None) for n in range(count)]


def balanced(card: FakeCard) -> bool:
    return set(card.residuals().values()) == {0}


def test_the_card_finds_the_posted_packets(card: FakeCard) -> None:
    assert card.tx_burst(packets(card, 10), queue=1) == 10
    assert card.transmit(queue=0) == []
    assert card.transmit(queue=1) == frames(10)


def test_only_the_last_descriptor_of_a_burst_reports(card: FakeCard) -> None:
    card.tx_burst(packets(card, 5))
    reports = [bool(card.words(0, index, TDBAL)[1] & RS) for index in range(5)]
    assert reports == [False] * 4 + [True]


def test_one_doorbell_per_burst_and_none_without_packets(card: FakeCard) -> None:
    card.tx_burst(packets(card, 5))
    assert card.tail(base=TDT) == 5
    card.port.access.write32(TDT, UNTOUCHED)
    assert card.tx_burst([]) == 0
    assert card.reclaim() == 0
    assert card.tail(base=TDT) == UNTOUCHED


def test_a_burst_completes_as_a_whole(card: FakeCard) -> None:
    free = card.memory.free_count
    card.tx_burst(packets(card, 4))
    card.tx_burst(packets(card, 3))
    card.transmit(limit=3)
    assert card.reclaim() == 0
    card.transmit(limit=2)
    assert card.reclaim() == 4
    assert card.port.posted()[1] == 3
    card.transmit()
    assert card.reclaim() == 3
    assert card.memory.free_count == free
    assert card.reclaim() == 0


def test_completions_are_booked_at_the_input_and_the_output_queue(card: FakeCard) -> None:
    refs = packets(card, 10)
    for ref in refs[:3]:
        card.ledger[ref.buffer] |= 1 << 8  # received by queue 1
    card.counters(0).rx_packets -= 3
    card.counters(1).rx_packets += 3
    card.tx_burst(refs, queue=1)
    assert card.counters(1).tx_packets == 0
    card.transmit(queue=1)
    card.reclaim(queue=1)
    assert card.counters(1).tx_packets == 10
    assert card.counters(1).tx_bytes == sum(60 + n for n in range(10))
    assert (card.counters(0).transmitted, card.counters(1).transmitted) == (7, 3)
    assert balanced(card)


def test_a_packet_that_a_plugin_made_is_booked_as_a_blank(card: FakeCard) -> None:
    card.tx_burst([card.packet(number(1), blank=True), card.packet(number(2))])
    card.transmit()
    card.reclaim()
    assert card.books.slots[0].blanks_transmitted == 1
    assert card.counters(0).transmitted == 1
    assert card.counters(0).tx_packets == 2
    assert balanced(card)


def test_a_full_ring_takes_what_fits(card: FakeCard) -> None:
    refs = packets(card, 64)
    assert card.tx_burst(refs) == 63
    assert card.tx_burst(refs[63:]) == 0
    assert card.transmit() == frames(63)
    assert card.tx_burst(refs[63:]) == 0  # not reclaimed yet
    assert card.reclaim() == 63
    assert card.tx_burst(refs[63:]) == 1
    card.transmit()
    card.reclaim()
    assert balanced(card)


def test_a_burst_posts_at_most_one_batch(instance: Callable[[], str]) -> None:
    with FakeCard(instance(), tx_descriptors=256).start() as card:
        assert card.tx_burst(packets(card, 100)) == lib.RL_BATCH_MAX
        assert card.transmit() == frames(lib.RL_BATCH_MAX)
        assert card.reclaim() == lib.RL_BATCH_MAX
        assert balanced(card)


def test_a_ring_goes_round_with_every_frame_in_order(card: FakeCard) -> None:
    expected = 0
    for size in (60, 10, 33, 64, 1, 50) * 12:
        sent = card.tx_burst([card.packet(number(expected + n)) for n in range(min(size, 63))])
        assert card.transmit() == [Sent(number(expected + n), None) for n in range(sent)]
        expected += sent
        assert card.reclaim() == sent
    assert expected > 2000
    assert balanced(card)


def test_a_frame_may_begin_anywhere_in_its_buffer(card: FakeCard) -> None:
    ref = card.packet(number(1, 100))
    ref.offset += 4
    ref.length -= 4
    card.tx_burst([ref])
    assert card.transmit() == [Sent(number(1, 96), None)]


def test_tags_are_inserted_and_a_context_is_sent_when_the_tag_changes(card: FakeCard) -> None:
    tags = [5, 5, None, 5, 6, 6, None, 7]
    refs = [card.packet(number(n), tag) for n, tag in enumerate(tags)]
    assert card.tx_burst(refs) == 8
    assert card.tail(base=TDT) == 8 + 3
    assert card.transmit() == [Sent(number(n), tag) for n, tag in enumerate(tags)]
    assert card.reclaim() == 8
    card.tx_burst([card.packet(number(9), 7)])  # the context still has this tag
    assert card.tail(base=TDT) == 12
    assert card.transmit() == [Sent(number(9), 7)]
    card.reclaim()
    assert balanced(card)


@pytest.mark.parametrize("bit", range(16))
def test_tags_that_differ_in_one_bit_need_two_contexts(card: FakeCard, bit: int) -> None:
    """A tag is 16 bits: beside the number of the VLAN also priority (13 to 15) and DEI (12)."""
    tags = [0x2345, 0x2345 ^ 1 << bit, 0x2345]
    assert card.tx_burst([card.packet(number(n), tag) for n, tag in enumerate(tags)]) == 3
    assert card.transmit() == [Sent(number(n), tag) for n, tag in enumerate(tags)]
    assert card.tail(base=TDT) == 6, "three packets and three contexts"


def test_the_tag_zero_needs_a_context_too(card: FakeCard) -> None:
    card.tx_burst([card.packet(number(1), 0)])
    assert card.transmit() == [Sent(number(1), 0)]


@pytest.mark.parametrize("used", range(64))
def test_a_context_and_its_packet_fit_or_neither_is_posted(card: FakeCard, used: int) -> None:
    assert card.tx_burst([card.packet(number(0)) for _ in range(used)]) == used
    tags = [1, 2, 2, 3]
    refs = [card.packet(number(n), tag) for n, tag in enumerate(tags)]
    sent = card.tx_burst(refs)
    needed = [2, 4, 5, 7]  # descriptors up to and including each packet
    assert sent == sum(descriptors <= 63 - used for descriptors in needed)
    assert card.transmit()[used:] == [Sent(number(n), tag) for n, tag in enumerate(tags[:sent])]
    assert card.reclaim() == used + sent
    rest = [card.packet(number(n), tag) for n, tag in enumerate(tags)]
    assert card.tx_burst(rest) == 4
    assert card.transmit() == [Sent(number(n), tag) for n, tag in enumerate(tags)]


def test_buffers_in_unordered_pages(instance: Callable[[], str]) -> None:
    with FakeCard(instance(), pages=14).start() as card:
        for ref in packets(card, 64):
            card.tx_burst([ref])
            bus = card.words(0, (card.tail(base=TDT) - 1) % 64, TDBAL)[0]
            offset = ref.buffer * card.packets.stride + ref.offset + card.packets.first_offset
            assert card.offset(bus) == offset
            assert len(card.transmit()) == 1
            card.reclaim()


def test_unsent_packets_are_booked_when_the_port_stops(card: FakeCard) -> None:
    card.tx_burst([card.packet(number(n), 5) for n in range(3)])
    card.tx_burst([card.packet(number(9), blank=True)])
    card.receive(number(1))
    assert card.port.posted() == (128, 4)
    assert balanced(card)
    card.port.stop()
    assert card.counters(0).drop_tx_down == 3
    assert card.books.slots[0].blanks_lost == 1
    assert card.port.posted() == (0, 0)
    assert card.memory.free_count == card.memory.buffers
    assert not card.port.bus_mastering
    assert balanced(card)


def test_stop_waits_until_posted_packets_are_sent(card: FakeCard) -> None:
    card.tx_burst(packets(card, 3))
    card.port.access.relax = card.transmit  # the card sends while the driver waits
    card.port.stop()
    assert card.counters(0).drop_tx_down == 0
    assert card.counters(0).transmitted == 3
    assert balanced(card)


def test_sent_packets_count_as_sent_when_the_stop_fails(
    card: FakeCard,
) -> None:
    card.tx_burst(packets(card, 3))
    card.transmit()
    card.tx_burst(packets(card, 2, first=3))
    card.port.access.write32(SECRXSTAT, 0)  # the card no longer answers
    card.port.stop()
    assert card.port.faults()
    assert (card.counters(0).transmitted, card.counters(0).drop_tx_down) == (3, 2)
    assert balanced(card)


def test_a_port_can_be_started_again(card: FakeCard) -> None:
    for n in range(5):
        card.receive(number(n))
    for ref in map(card.held, card.rx_burst()):
        card.tx_burst([ref])
    card.transmit(limit=2)
    card.port.stop()
    assert card.port.posted() == (0, 0)
    assert balanced(card)
    card.start()
    assert card.port.posted() == (128, 0)
    for n in range(64):
        card.receive(number(n))
    refs = [card.held(ref) for ref in card.rx_burst()]
    assert [card.frame(ref) for ref in refs] == [number(n) for n in range(63)]
    card.tx_burst(refs)
    assert [sent.frame for sent in card.transmit()] == [number(n) for n in range(63)]
    card.reclaim()
    assert balanced(card)


def test_as_many_buffers_as_rx_descriptors_are_enough(instance: Callable[[], str]) -> None:
    with FakeCard(instance(), buffers=128, queues=2).start() as card:
        assert card.port.posted() == (128, 0)
        assert card.memory.free_count == 0
        assert balanced(card)


def test_too_few_buffers_are_an_error_with_the_numbers(instance: Callable[[], str]) -> None:
    with (
        FakeCard(instance(), buffers=127, queues=2) as card,
        pytest.raises(Exception, match=r"2 x 64 = 128 for its RX descriptors, and 127 are free"),
    ):
        card.start()
