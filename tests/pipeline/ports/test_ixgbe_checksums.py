"""The transmit context for checksums: what the 82599's driver tells the card of a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringline.pipeline._pipeline import lib

from .fake_card import TDBAL, FakeCard

MACS = bytes(12)
FOUR, SIX = b"\x08\x00\x45" + bytes(8), b"\x86\xdd\x60" + bytes(5)
TAG = b"\x81\x00\x00\x07"
IXSM, TXSM, VLE = 1 << 40, 1 << 41, 1 << 30
UDP4, TCP4, UDP6, TCP6 = 1 << 10, 3 << 10, 0, 1 << 11  # IPV4 and L4T of a context


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[FakeCard]:
    with FakeCard(instance()) as card:
        yield card.start()


def flagged(card: FakeCard, frame: bytes, tag: int | None = None) -> Any:
    ref = card.packet(frame.ljust(60, b"\0"), tag)
    ref.flags |= lib.RL_FLAG_FIX_CHECKSUMS
    return ref


def descriptors(card: FakeCard) -> list[tuple[int, int]]:
    """The words of all posted descriptors."""
    tail = card.tail(base=0x6018)
    found = [card.words(0, at, TDBAL) for at in range(tail)]
    return [(int(words[0]), int(words[1])) for words in found]


@pytest.mark.parametrize(
    ("frame", "l3", "ip", "kind", "popts"),
    [
        (MACS + FOUR + b"\x11", 14, 20, UDP4, IXSM | TXSM),
        (MACS + FOUR + b"\x06", 14, 20, TCP4, IXSM | TXSM),
        (MACS + SIX + b"\x11" + bytes(60), 14, 40, UDP6, TXSM),
        (MACS + SIX + b"\x06" + bytes(60), 14, 40, TCP6, TXSM),
        (MACS + TAG + FOUR + b"\x06", 18, 20, TCP4, IXSM | TXSM),
        (MACS + b"\x88\xa8\0\1" + TAG + SIX + b"\x11" + bytes(60), 22, 40, UDP6, TXSM),
    ],
)
def test_a_context_says_where_the_headers_are(
    card: FakeCard, frame: bytes, l3: int, ip: int, kind: int, popts: int
) -> None:
    assert card.tx_burst([flagged(card, frame)]) == 1
    context, data = descriptors(card)
    assert context == (l3 << 9 | ip, 1 << 29 | 2 << 20 | kind)
    assert data[1] & (IXSM | TXSM | VLE) == popts


@pytest.mark.parametrize(
    "frame",
    [
        MACS + b"\x08\x06",
        MACS + b"\x08\x00\x46" + bytes(8) + b"\x06",  # options
        MACS + FOUR + b"\x01",  # ICMP
        MACS + SIX + b"\x00",  # an extension header
        MACS + 3 * TAG + FOUR + b"\x06",
        (MACS + SIX + b"\x06").ljust(73, b"\0"),  # one byte short of a TCP header
    ],
    ids=["ARP", "options", "ICMP", "extension", "three tags", "short"],
)
def test_no_context_for_what_the_card_cannot_do(card: FakeCard, frame: bytes) -> None:
    assert card.tx_burst([flagged(card, frame)]) == 1
    ((_, upper),) = descriptors(card)
    assert upper & (IXSM | TXSM) == 0


def test_frames_of_one_kind_share_a_context(card: FakeCard) -> None:
    frame = MACS + FOUR + b"\x06"
    assert card.tx_burst([flagged(card, frame) for _ in range(5)]) == 5
    assert len(descriptors(card)) == 6
    assert card.tx_burst([flagged(card, MACS + FOUR + b"\x11"), flagged(card, frame)]) == 2
    assert len(descriptors(card)) == 6 + 4


def test_a_tag_and_checksums_are_in_one_context(card: FakeCard) -> None:
    assert card.tx_burst([flagged(card, MACS + FOUR + b"\x06", tag=9)]) == 1
    context, data = descriptors(card)
    assert context == (9 << 16 | 14 << 9 | 20, 1 << 29 | 2 << 20 | TCP4)
    assert data[1] & (IXSM | TXSM | VLE) == IXSM | TXSM | VLE
