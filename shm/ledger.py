"""The ledger and the books of a lane, read and put in order from Python (ledger.h).

While a driver lives, this only reads. When a driver was killed, `settle_driver`
makes its books exact. Guarantees (tests in tests/shm/test_settle_driver.py):
 - wherever the driver was stopped, every equation is 0 afterwards
   (test_books_balance_wherever_the_driver_was_stopped)
 - a packet that was received is transmitted, dropped for its reason, or
   driver_lost: exactly one of them (test_each_packet_ends_once)
 - settling what is settled changes nothing (test_settling_twice_is_settling_once)

Assumption: no driver runs. The supervisor has reaped it.
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import BooksError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ringline.shm.segments import Segment

UNUSABLE: int = lib.RL_HOLDER_UNUSABLE
FREE: int = lib.RL_HOLDER_FREE
CARD_RX: int = lib.RL_HOLDER_CARD_RX
CARD_TX: int = lib.RL_HOLDER_CARD_TX
WORKER: int = lib.RL_HOLDER_WORKER
BLANK: int = lib.RL_INPUT_BLANK

_FREE_WORD = FREE << 28


def holder(word: int) -> int:
    """Who holds the buffer: UNUSABLE, FREE, CARD_RX, CARD_TX or WORKER."""
    return word >> 28


def generation_of(word: int) -> int:
    """The worker's generation, or the output port of a buffer on a TX ring; 12 bits."""
    return word >> 16 & 0xFFF


def queue_of(word: int) -> int:
    """The queue that the packet came in by, which is its worker's."""
    return word >> 8 & 0xFF


def input_of(word: int) -> int:
    """The port that the packet came in by, or BLANK; of a posted buffer, its port."""
    return word & 0xFF


class Ledger:
    """The books of a lane's segment: `lane`, `struct rl_lane_segment *`, and `words`,
    one 32-bit word per buffer.

    Raises BooksError when the segment's own geometry is impossible.
    """

    def __init__(self, segment: Segment) -> None:
        self.lane: Any = segment.at("struct rl_lane_segment *")
        self.buffers: int = self.lane.buffers
        start: int = self.lane.ledger_offset
        if (
            start % 4
            or start < ffi.sizeof("struct rl_lane_segment")
            or start + 4 * self.buffers > segment.size
        ):
            raise BooksError(
                f"{segment.path} says that its ledger has {self.buffers} words from {start} on, "
                f"and has {segment.size} bytes"
            )
        self.words: Any = ffi.cast("uint32_t *", segment.address + start)
        self.path = segment.path

    def word(self, buffer: int) -> int:
        """What the ledger says of `buffer`; IndexError when there is none such."""
        if not 0 <= buffer < self.buffers:
            raise IndexError(f"buffer {buffer} of {self.buffers}")
        return int(self.words[buffer])

    def all(self) -> list[int]:
        """A copy of every word."""
        return list(ffi.unpack(self.words, self.buffers))

    def held_by_workers(self) -> list[int]:
        """How many buffers the worker of each queue holds."""
        held = [0] * lib.RL_QUEUES_MAX
        for word in self.all():
            if holder(word) == WORKER:
                held[queue_of(word) % lib.RL_QUEUES_MAX] += 1
        return held


class DriverSettlement:
    """What settling a killed driver came to.

    `finished`: buffers of the batch in whose booking it was stopped. `returned`:
    references taken back from workers and not yet counted so. `transmitted`: found
    sent by the card. `lost`: packets now counted driver_lost. `blanks_lost`:
    granted buffers lost with it. `posted`: receive buffers taken back from cards.
    """

    __slots__ = ("blanks_lost", "finished", "lost", "posted", "returned", "transmitted")

    def __init__(self) -> None:
        self.finished = self.returned = self.transmitted = 0
        self.lost = self.blanks_lost = self.posted = 0


def settle_driver(segment: Segment, sent: Collection[int] = ()) -> DriverSettlement:
    """Make the books of a driver that was killed exact, and free every buffer.

    `sent` are buffers whose TX descriptors say that the card has sent them: they
    are booked as transmitted. All else in flight, with cards and with workers, is
    `driver_lost`. Raises BooksError when the intent record cannot be one of ours.
    """
    ledger = Ledger(segment)
    result = DriverSettlement()
    result.finished = _finish_batch(ledger)
    result.returned = _count_returned(ledger)
    gone = frozenset(sent)
    for buffer, word in enumerate(ledger.all()):
        match holder(word):
            case lib.RL_HOLDER_CARD_RX:
                result.posted += 1
            case lib.RL_HOLDER_CARD_TX:
                _book(ledger, word, result, sent=buffer in gone)
            case lib.RL_HOLDER_WORKER:
                ledger.lane.slots[queue_of(word) % lib.RL_QUEUES_MAX].lost += 1
                _book(ledger, word, result, sent=False)
            case _:
                continue
        ledger.words[buffer] = _FREE_WORD
    lib.rl_balance_without_driver(ledger.lane)
    return result


def _finish_batch(ledger: Ledger) -> int:
    """Do again, whole, what the intent record says was begun. Returns its buffers."""
    intent = ledger.lane.intent
    if intent.operation == 0:
        return 0
    count = intent.count
    if intent.operation == lib.RL_INTENT_RECEIVE:
        buffers = [intent.references[i].buffer for i in range(min(count, lib.RL_BATCH_MAX))]
    else:
        buffers = list(intent.buffers[0 : min(count, lib.RL_BATCH_MAX)])
    counters = [(intent.counter[i], intent.before[i]) for i in range(2) if intent.counter[i]]
    if (
        intent.operation not in (lib.RL_INTENT_RECEIVE, lib.RL_INTENT_ASSIGN)
        or count > lib.RL_BATCH_MAX
        or any(buffer >= ledger.buffers for buffer in buffers)
        or not all(_is_counter(offset) for offset, _ in counters)
    ):
        raise BooksError(
            f"the intent record in {ledger.path} cannot have been written by a driver: "
            "its memory was overwritten, and the books are lost"
        )
    for buffer in buffers:
        ledger.words[buffer] = intent.word
    start = ffi.cast("char *", ledger.lane)
    for offset, before in counters:
        ffi.cast("uint64_t *", start + offset)[0] = before + count
    intent.operation = 0
    return len(buffers)


def _is_counter(offset: int) -> bool:
    """Whether a counter of a queue or a worker slot lies at `offset` in the segment."""
    first = ffi.offsetof("struct rl_lane_segment", "queues")
    last = ffi.offsetof("struct rl_lane_segment", "balance") - 8
    return offset % 8 == 0 and first <= offset <= last


def _count_returned(ledger: Ledger) -> int:
    """Count references that the driver had taken back from a worker, as their words
    say, but not yet counted as returned when it was stopped.

    That can be one batch per worker: more is a mistake in the books, and stays to
    be seen in them.
    """
    total = 0
    for queue, held in enumerate(ledger.held_by_workers()):
        slot = ledger.lane.slots[queue]
        uncounted = slot.pushed - slot.returned - slot.lost - held
        if 0 < uncounted <= lib.RL_BATCH_MAX:
            slot.returned += uncounted
            total += uncounted
    return total


def _book(ledger: Ledger, word: int, result: DriverSettlement, *, sent: bool) -> None:
    """One packet in flight ends."""
    queue = queue_of(word) % lib.RL_QUEUES_MAX
    if sent:
        result.transmitted += 1
        port = generation_of(word) % lib.RL_PORTS_MAX
        ledger.lane.queues[port * lib.RL_QUEUES_MAX + queue].tx_packets += 1
    if input_of(word) == BLANK:
        slot = ledger.lane.slots[queue]
        if sent:
            slot.blanks_transmitted += 1
        else:
            slot.blanks_lost += 1
            result.blanks_lost += 1
        return
    port = input_of(word) % lib.RL_PORTS_MAX
    came_in = ledger.lane.queues[port * lib.RL_QUEUES_MAX + queue]
    if sent:
        came_in.transmitted += 1
    else:
        came_in.drop_driver_lost += 1
        result.lost += 1
