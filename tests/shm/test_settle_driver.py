"""The books of a driver that was killed at any instruction (settle_driver).

The real lane runs in settle_walk.c, one instruction at a time under ptrace. A killed
process leaves exactly the stores that it made before. So after every instruction that
changed the lane's segment, a copy of the segment is settled, and all residuals must be 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cffi import FFI

from ringline.shm import counters, ledger
from ringline.shm._shm import ffi, lib
from ringline.shm.errors import BooksError
from ringline.shm.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
BUFFERS = 60
PASSES = 120 if PROOF else 9
QUEUES = lib.RL_QUEUES_MAX
PORTS = lib.RL_PORTS_MAX
PTRACE_SINGLESTEP = 9
LANE = "struct rl_lane_segment"

WORKER = ledger.WORKER << 28
CARD_TX = ledger.CARD_TX << 28
CARD_RX = ledger.CARD_RX << 28
FREE = ledger.FREE << 28


class Books:
    """A lane's segment, as the supervisor makes it; all buffers are free."""

    def __init__(self, instance: str, buffers: int = BUFFERS) -> None:
        start = ffi.sizeof(LANE)
        # One more number after the ledger: the packets that settle_walk's ports delivered.
        size = start + 4 * buffers + 8
        self.segment = Segment.create(instance, "lane.0", size, kind=lib.RL_SEGMENT_LANE)
        self.lane: Any = self.segment.at(f"{LANE} *")
        self.lane.ledger_offset = start
        self.lane.buffers = buffers
        self.words = ledger.Ledger(self.segment).words
        for buffer in range(buffers):
            self.words[buffer] = FREE

    def counter(self, port: int, queue: int) -> Any:
        return self.lane.queues[port * QUEUES + queue]

    def intend(
        self, operation: int, buffers: list[int], word: int, *fields: tuple[Any, str]
    ) -> None:
        """Write the intent record as rl_intend does; `fields` are the counters."""
        intent = self.lane.intent
        intent.count = len(buffers)
        intent.word = word
        for i, (struct, field) in enumerate(fields):
            at = ffi.addressof(struct, field)
            intent.counter[i] = int(ffi.cast("uintptr_t", at)) - self.segment.address
            intent.before[i] = getattr(struct, field)
        for i, buffer in enumerate(buffers):
            intent.buffers[i] = intent.references[i].buffer = buffer
        intent.operation = operation

    def residuals(self) -> dict[str, Any]:
        """Return every number of the published balance that is not 0, except free and unusable."""
        balance = counters.read(self.lane.balance)
        assert balance["sequence"] % 2 == 0
        return {
            name: value
            for name, value in balance.items()
            if name not in ("sequence", "when", "free", "unusable")
            and any(value if isinstance(value, list) else [value])
        }


@pytest.fixture
def books(instance: Callable[[], str]) -> Iterator[Books]:
    made = Books(instance())
    with made.segment:
        yield made


def single_steps(program: Path, books: Books) -> Iterator[int]:
    """Run settle_walk on the books; yield the number of instructions after each one."""
    c_library = FFI()
    c_library.cdef("long ptrace(long request, long pid, void *address, void *data);")
    step = c_library.dlopen(None).ptrace
    nothing = c_library.NULL
    fd = books.segment.fd
    walker = subprocess.Popen(
        [str(program), str(fd), str(BUFFERS), str(PASSES)], pass_fds=[fd], stderr=subprocess.PIPE
    )
    try:
        _, status = os.waitpid(walker.pid, 0)
        if os.WIFEXITED(status):
            walker.returncode = os.WEXITSTATUS(status)
            assert walker.stderr is not None
            pytest.skip(f"needs ptrace: {walker.stderr.read().decode().strip()}")
        steps = 0
        while True:
            assert step(PTRACE_SINGLESTEP, walker.pid, nothing, nothing) == 0
            _, status = os.waitpid(walker.pid, 0)
            if not os.WIFSTOPPED(status):
                break
            assert os.WSTOPSIG(status) == signal.SIGTRAP
            steps += 1
            yield steps
        walker.returncode = os.waitstatus_to_exitcode(status)
        assert walker.returncode == 0
    finally:
        if walker.returncode is None:
            os.kill(walker.pid, signal.SIGKILL)
            os.waitpid(walker.pid, 0)
            walker.returncode = -signal.SIGKILL
        assert walker.stderr is not None
        walker.stderr.close()


@pytest.mark.slow
def test_books_balance_wherever_the_driver_was_stopped(
    build_c: Callable[..., Path], books: Books, instance: Callable[[], str]
) -> None:
    lane = (f"pipeline/driver/{file}.c" for file in ("lane", "settle", "refuse", "idle"))
    sources = "tests/shm/settle_walk.c", *lane
    program = build_c(*sources, flags=["-O3"])  # as it is shipped
    copy = Books(instance())
    seen, states, mid_batch, steps = b"", 0, 0, 0
    with copy.segment:
        for steps in single_steps(program, books):
            now = bytes(books.segment.memory)
            if now == seen:
                continue
            seen = now
            states += 1
            copy.segment.memory[lib.RL_HEADER_BYTES :] = now[lib.RL_HEADER_BYTES :]
            mid_batch += copy.lane.intent.operation != 0
            settled = ledger.settle_driver(copy.segment)
            assert copy.residuals() == {}, (
                f"stopped after instruction {steps}: "
                f"{ {name: getattr(settled, name) for name in settled.__slots__} }"
            )
            assert copy.lane.balance.free == BUFFERS
            # All delivered packets are counted, except those of the burst in progress.
            delivered = ffi.cast("uint64_t *", copy.words + BUFFERS)[0]
            booked = sum(copy.counter(port, q).rx_packets for port in range(2) for q in range(2))
            assert 0 <= delivered - booked <= lib.RL_BATCH_MAX
    print(f"{steps} instructions, {states} states, {mid_batch} within a batch")
    assert mid_batch > 100, "too few stops inside a batch"
    finished = [counters.read(queue) for queue in books.lane.queues]
    for cause in ("transmitted", "drop_plugin", "drop_plugin_error", "drop_no_worker"):
        assert sum(queue[cause] for queue in finished), f"the walk had no packet with {cause}"
    slots = [counters.read(slot) for slot in books.lane.slots]
    for cause in ("lost", "carried", "bad_reference", "blanks_transmitted", "blanks_returned"):
        assert sum(slot[cause] for slot in slots), f"the walk had no {cause}"


def in_flight(books: Books) -> None:
    """Port 0 received 3 packets on queue 1: the worker holds one, two are on TX rings.

    The worker also holds one blank; another blank is on a TX ring.
    """
    books.words[5] = WORKER | 4 << 16 | 1 << 8 | 0
    books.words[6] = CARD_TX | 1 << 16 | 1 << 8 | 0
    books.words[7] = CARD_TX | 1 << 16 | 1 << 8 | 0
    books.words[8] = CARD_RX | 0
    books.words[9] = WORKER | 4 << 16 | 1 << 8 | ledger.BLANK
    books.words[10] = CARD_TX | 0 << 16 | 1 << 8 | ledger.BLANK
    books.words[11] = 0
    books.counter(0, 1).rx_packets = 3
    slot = books.lane.slots[1]
    slot.pushed, slot.returned, slot.blanks_granted = 5, 3, 2


def test_each_packet_ends_once(books: Books) -> None:
    in_flight(books)
    settled = ledger.settle_driver(books.segment)
    assert books.residuals() == {}
    assert books.counter(0, 1).drop_driver_lost == 3
    assert books.counter(0, 1).transmitted == 0
    assert books.lane.slots[1].lost == 2
    assert books.lane.slots[1].blanks_lost == 2
    assert (settled.lost, settled.blanks_lost, settled.posted) == (3, 2, 1)
    assert books.words[11] == 0, "an unusable buffer does not become free"
    assert books.lane.balance.free == BUFFERS - 1


def test_what_the_card_has_sent_counts_as_transmitted(books: Books) -> None:
    in_flight(books)
    settled = ledger.settle_driver(books.segment, sent={7, 10, 5})
    assert books.residuals() == {}
    assert books.counter(0, 1).transmitted == 1
    assert books.counter(0, 1).drop_driver_lost == 2, "5 was never on a TX ring"
    assert books.counter(1, 1).tx_packets == 1
    assert books.counter(0, 1).tx_packets == 1, "the blank was sent by port 0"
    assert books.lane.slots[1].blanks_transmitted == 1
    assert (settled.transmitted, settled.lost, settled.blanks_lost) == (2, 2, 1)


def test_settling_twice_is_settling_once(books: Books) -> None:
    in_flight(books)
    books.intend(lib.RL_INTENT_ASSIGN, [6], FREE, (books.counter(0, 1), "transmitted"))
    ledger.settle_driver(books.segment)
    once = bytes(books.segment.memory)
    again = ledger.settle_driver(books.segment)
    assert not any(getattr(again, name) for name in again.__slots__)
    ignored = ffi.offsetof(LANE, "balance")
    assert (
        bytes(books.segment.memory)[lib.RL_HEADER_BYTES : ignored]
        == (once[lib.RL_HEADER_BYTES : ignored])
    )


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_a_receive_that_was_begun_is_finished(books: Books, done: int) -> None:
    queue, slot = books.counter(0, 1), books.lane.slots[1]
    queue.rx_packets, queue.transmitted = 10, 10
    slot.pushed, slot.returned = 10, 10
    word = WORKER | 4 << 16 | 1 << 8 | 0
    books.words[5] = books.words[6] = CARD_RX
    books.intend(lib.RL_INTENT_RECEIVE, [5, 6], word, (queue, "rx_packets"), (slot, "pushed"))
    for step, effect in enumerate(
        [
            lambda: books.words.__setitem__(5, word),
            lambda: books.words.__setitem__(6, word),
            lambda: setattr(queue, "rx_packets", 12),
            lambda: setattr(slot, "pushed", 12),
        ]
    ):
        if step < done:
            effect()
    settled = ledger.settle_driver(books.segment)
    assert books.residuals() == {}
    assert (queue.rx_packets, queue.drop_driver_lost) == (12, 2)
    assert (slot.pushed, slot.lost) == (12, 2)
    assert (settled.finished, settled.lost) == (2, 2)


def test_a_return_that_was_not_counted_yet_is_counted(books: Books) -> None:
    slot = books.lane.slots[1]
    books.counter(0, 1).rx_packets = slot.pushed = 2
    books.words[5] = CARD_TX | 1 << 16 | 1 << 8 | 0
    books.words[6] = WORKER | 4 << 16 | 1 << 8 | 0
    settled = ledger.settle_driver(books.segment)
    assert books.residuals() == {}
    assert (slot.returned, slot.lost, settled.returned) == (1, 1, 1)


def test_a_difference_larger_than_a_batch_stays_visible(books: Books) -> None:
    books.lane.slots[1].pushed = 65
    ledger.settle_driver(books.segment)
    assert books.residuals() == {"worker_residual": [0, 65] + [0] * 14}
    books.lane.slots[1].pushed, books.lane.slots[1].returned = 0, 1
    ledger.settle_driver(books.segment)
    assert books.residuals() == {"worker_residual": [0, -1] + [0] * 14}


def test_books_that_do_not_balance_stay_so(books: Books) -> None:
    books.counter(2, 3).rx_packets = 1
    ledger.settle_driver(books.segment)
    assert books.residuals() == {"packets_residual": [0, 0, 1] + [0] * 13}


def test_a_balance_that_was_being_written_is_readable_again(books: Books) -> None:
    books.lane.balance.sequence = 7
    ledger.settle_driver(books.segment)
    assert books.lane.balance.sequence == 8


@pytest.mark.parametrize(
    ("field", "value"),
    [("operation", 9), ("count", 65), ("buffer", BUFFERS), ("counter", 4096 + 8)],
)
def test_an_intent_that_no_driver_wrote_is_refused(books: Books, field: str, value: int) -> None:
    books.intend(lib.RL_INTENT_ASSIGN, [1], FREE, (books.counter(0, 0), "transmitted"))
    intent = books.lane.intent
    if field == "buffer":
        intent.buffers[0] = value
    elif field == "counter":
        intent.counter[0] = value
    else:
        setattr(intent, field, value)
    before = bytes(books.segment.memory)
    with pytest.raises(BooksError, match="cannot have been written by a driver"):
        ledger.settle_driver(books.segment)
    assert bytes(books.segment.memory) == before
