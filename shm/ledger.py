"""The ledger and the books of the lane in Python (ledger.h).

While the driver lives, this module only reads. After it was killed, `settle_driver` makes the
books exact. Guarantees (tests in tests/shm/test_settle_driver.py):
 - after it, every balance is 0, wherever the driver was stopped
   (test_books_balance_wherever_the_driver_was_stopped)
 - each received packet ends exactly once: transmitted, dropped for its reason, or driver_lost
   (test_each_packet_ends_once)
 - a second settlement changes nothing (test_settling_twice_is_settling_once)

Assumption of `settle_driver`: no driver runs. The supervisor has reaped it.
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
    """The holder of the buffer: UNUSABLE, FREE, CARD_RX, CARD_TX or WORKER."""
    return word >> 28


def generation_of(word: int) -> int:
    """The generation of the worker, or the output port of a buffer on a TX ring; 12 bits."""
    return word >> 16 & 0xFFF


def queue_of(word: int) -> int:
    """The queue on which the packet was received; it is also the number of its worker."""
    return word >> 8 & 0xFF


def input_of(word: int) -> int:
    """The port on which the packet was received, or BLANK; for CARD_RX the port of the ring."""
    return word & 0xFF


class Ledger:
    """The books in a lane's segment: `lane` is a `struct rl_lane_segment *`, `words` has one
    32-bit word per buffer.

    Raises BooksError when the ledger does not lie inside the segment.
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
                f"{segment.path} says that its ledger has {self.buffers} words from byte {start} "
                f"on, but it has only {segment.size} bytes: its memory was overwritten"
            )
        self.words: Any = ffi.cast("uint32_t *", segment.address + start)
        self.path = segment.path

    def word(self, buffer: int) -> int:
        """The word of `buffer`; raises IndexError when there is no such buffer."""
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
    """The result of settling a killed driver.

    `finished`: buffers of the intent that was repeated. `returned`: references that the driver
    had accepted from workers but not counted. `transmitted`: packets that the card had sent.
    `lost`: packets counted as driver_lost. `blanks_lost`: blanks counted as lost. `posted`:
    buffers taken from RX descriptors.
    """

    __slots__ = ("blanks_lost", "finished", "lost", "posted", "returned", "transmitted")

    def __init__(self) -> None:
        self.finished = self.returned = self.transmitted = 0
        self.lost = self.blanks_lost = self.posted = 0


def settle_driver(segment: Segment, sent: Collection[int] = ()) -> DriverSettlement:
    """Make the books of a killed driver exact, and free every buffer.

    `sent` are buffers that the card has sent by their TX descriptors: they count as transmitted.
    All other packets on TX rings and with workers count as driver_lost. struct rl_intent in
    types.h lists the changes that may be incomplete. Raises BooksError when no driver can have
    written the intent.
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
    """Repeat the change of the intent, if there is one. Returns its number of buffers."""
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
            "its memory was overwritten, and its counters are no longer exact"
        )
    for buffer in buffers:
        ledger.words[buffer] = intent.word
    start = ffi.cast("char *", ledger.lane)
    for offset, before in counters:
        ffi.cast("uint64_t *", start + offset)[0] = before + count
    intent.operation = 0
    return len(buffers)


def _is_counter(offset: int) -> bool:
    """Whether a counter of a queue or of a worker slot can lie at byte `offset` of the segment."""
    first = ffi.offsetof("struct rl_lane_segment", "queues")
    last = ffi.offsetof("struct rl_lane_segment", "balance") - 8
    return offset % 8 == 0 and first <= offset <= last


def _count_returned(ledger: Ledger) -> int:
    """Add references to `returned` that the driver had accepted, by their words, but not counted.

    They are at most one batch of one worker. A larger difference is a mistake in the books, and
    the balances must show it (tests/shm/test_settle_driver.py:
    test_a_difference_larger_than_a_batch_stays_visible).
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
    """Count the end of one packet or blank in flight, whose word is `word`."""
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
