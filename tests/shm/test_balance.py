"""The balances: every mistake in the books makes a residual that is not 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringline.shm import counters, ledger
from ringline.shm._shm import ffi, lib
from ringline.shm.segments import Segment

BUFFERS = 8
IN, OUT, QUEUE = 2, 3, 5  # the ports and the queue of the one packet in flight
COUNTER = IN * lib.RL_QUEUES_MAX + QUEUE


@pytest.fixture
def books(instance: Callable[[], str]) -> Iterator[ledger.Ledger]:
    """Books without mistakes. Port IN received three packets: one was sent, one was dropped, one is
    with a worker. Another worker holds a blank; one buffer is on an RX descriptor ring."""
    start = ffi.sizeof("struct rl_lane_segment")
    size = start + 4 * BUFFERS
    with Segment.create(instance(), "lane.0", size, kind=lib.RL_SEGMENT_LANE) as segment:
        lane = segment.at("struct rl_lane_segment *")
        lane.ledger_offset, lane.buffers = start, BUFFERS
        books = ledger.Ledger(segment)
        for buffer in range(BUFFERS):
            books.words[buffer] = ledger.FREE << 28
        books.words[0] = ledger.WORKER << 28 | 1 << 16 | QUEUE << 8 | IN
        books.words[1] = ledger.WORKER << 28 | 1 << 16 | 6 << 8 | ledger.BLANK
        lane.queues[COUNTER].rx_packets = 3
        lane.queues[COUNTER].transmitted = 1
        lane.queues[COUNTER].drop_plugin = 1
        lane.slots[QUEUE].pushed, lane.slots[QUEUE].returned = 3, 2
        lane.slots[6].pushed = lane.slots[6].blanks_granted = 1
        yield books


def residuals(books: ledger.Ledger) -> dict[str, Any]:
    """The residuals that are not 0, by name."""
    lib.rl_balance_without_driver(books.lane)
    balance = counters.read(books.lane.balance)
    found: dict[str, Any] = {}
    for name, value in balance.items():
        if name.endswith("_residual"):
            values = value if isinstance(value, list) else [value]
            found |= {f"{name}[{i}]": each for i, each in enumerate(values) if each}
    return found


def test_books_in_order_balance(books: ledger.Ledger) -> None:
    assert residuals(books) == {}
    balance = books.lane.balance
    assert (balance.free, balance.worker[QUEUE], balance.worker[6]) == (BUFFERS - 2, 1, 1)
    assert balance.in_flight[IN] == 1, "a blank is no packet"
    assert balance.complete == 0


def lose_a_packet(books: ledger.Ledger) -> None:
    books.lane.queues[COUNTER].rx_packets += 1


def book_a_drop_twice(books: ledger.Ledger) -> None:
    books.lane.queues[COUNTER].drop_driver_lost += 1


def forget_a_return(books: ledger.Ledger) -> None:
    books.lane.slots[QUEUE].returned -= 1


def leave_a_posted_buffer(books: ledger.Ledger) -> None:
    books.words[7] = ledger.CARD_RX << 28 | OUT


def grant_without_a_buffer(books: ledger.Ledger) -> None:
    books.lane.slots[6].blanks_granted += 1


@pytest.mark.parametrize(
    ("mistake", "equations"),
    [
        (lose_a_packet, {f"packets_residual[{IN}]": 1}),
        (book_a_drop_twice, {f"packets_residual[{IN}]": -1}),
        (forget_a_return, {f"worker_residual[{QUEUE}]": 1}),
        (leave_a_posted_buffer, {f"descriptor_residual[{OUT}]": -1}),
        (grant_without_a_buffer, {"blanks_residual[0]": 1}),
    ],
)
def test_a_mistake_in_the_books_is_seen(
    books: ledger.Ledger, mistake: Callable[[ledger.Ledger], None], equations: dict[str, int]
) -> None:
    mistake(books)
    assert residuals(books) == equations


@pytest.mark.parametrize("left", [0, 1, 0xFFFFFFFE, 0xFFFFFFFF])
def test_a_balance_is_published_whole(books: ledger.Ledger, left: int) -> None:
    """Afterwards `sequence` is even and has changed, also when a driver died while it wrote (odd)
    and when the number wraps."""
    books.lane.balance.sequence = left
    assert residuals(books) == {}
    assert books.lane.balance.sequence == ((left | 1) + 1) & 0xFFFFFFFF != left
    assert books.lane.balance.sequence % 2 == 0
