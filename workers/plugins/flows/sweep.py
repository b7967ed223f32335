"""What `flow_stats` with the option `export` does between batches: it looks for flows whose record
is due, moves them into a queue, and sends what is in the queue.

A call of `tick` does a bounded part of it, so that no packet waits long: it looks at CHUNK lines of
the table, and moves and sends at most MOST records. As long as there is more, it is called 50 times
a second.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ringline.workers.ipfix import exporter, messages
from ringline.workers.plugins.flow_key import hash_of_rows, label
from ringline.workers.plugins.flows import export as flow_export

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ringline.workers.api import Counter, Worker

# The words of a line of the table: five of the key, then these. CHECK is the hash of the key, an
# odd number; 0 in a line that was never used, and GONE in one whose flow left: a search goes on
# behind it. PACKETS, BYTES (on the wire) and OCTETS (of IP) are those since the flow came. FIRST,
# LAST and FLAGS belong to the next record; FIRST is 0 when that has no packet yet.
KEY = 5
CHECK, PACKETS, BYTES, OCTETS, FIRST, LAST, FLAGS, SENT_PACKETS, SENT_OCTETS = range(5, 14)
WORDS = 14  # 32768 lines and the queue have room in the usual 4 MiB of named state
GONE = 2

# A line of the queue: the columns of messages.py; the line of the table that it came from, and
# whether its flow stayed there.
QUEUE = 2048
LINE, ACTIVE_AGAIN = messages.COLUMNS, messages.COLUMNS + 1
QUEUE_WORDS = messages.COLUMNS + 2

# HEAD: records that were ever put into the queue; what left it is TAKEN of the exporter. While
# records move from the table into the queue, MOVING is how many, and MOVING_FROM the HEAD before.
HEAD, MOVING, MOVING_FROM = range(3)
MARKS = 3

CHUNK = 4096  # lines
MOST = 512  # records: 18 messages


class State(NamedTuple):
    """The state of the compiled function."""

    flows: NDArray[np.int64]  # shape (slots, WORDS)
    queue: NDArray[np.int64]  # shape (QUEUE, QUEUE_WORDS): records that wait to be sent
    marks: NDArray[np.int64]  # see above
    counts: NDArray[np.int64]  # of the exporter
    outputs: NDArray[np.int64]  # the verdict by input port
    flows_seen: Counter
    flows_without_place: Counter
    other_packets: Counter  # neither IPv4 nor IPv6


def mend(state: State) -> None:
    """Put right what a killed worker left half done."""
    flows, marks = state.flows, state.marks
    if marks[MOVING]:
        numbers = np.arange(marks[MOVING_FROM], marks[MOVING_FROM] + marks[MOVING])
        _leave(state, state.queue[numbers & (QUEUE - 1)])
        marks[HEAD] = marks[MOVING_FROM] + marks[MOVING]
        marks[MOVING] = 0
    check = flows[:, CHECK]
    # A line that was half written when the worker died.
    flows[(check != GONE) & (check != 0) & (check != hash_of_rows(flows) | 1), CHECK] = GONE


def _leave(state: State, entries: NDArray[np.int64]) -> None:
    """These records are in the queue: their lines are free, or begin a new record. To do it twice
    is harmless."""
    flows = state.flows
    stay = entries[:, ACTIVE_AGAIN] != 0
    flows[entries[~stay, LINE], CHECK] = GONE
    lines = entries[stay, LINE]
    flows[lines, SENT_PACKETS] = flows[lines, PACKETS]
    flows[lines, SENT_OCTETS] = flows[lines, OCTETS]
    flows[lines, FLAGS] = 0
    flows[lines, FIRST] = 0


class Sweeper:
    """The passes over the table of one worker process."""

    def __init__(self, worker: Worker, state: State) -> None:
        self._state = state
        self._idle = int(worker.options["idle"] * 1e9)
        self._active = int(worker.options["active"] * 1e9)
        self._top = worker.options["top"]
        self._table = worker.table("top_talkers", "flow", ["packets", "bytes"], self._top)
        self._in_table = worker.gauge("flows_in_table")
        self._counters = {
            exporter.EXPORTED: worker.counter("flows_exported"),
            exporter.LOST: worker.counter("flows_not_exported"),
            exporter.MESSAGES: worker.counter("export_messages"),
        }
        self._log = worker.log
        self._told = ""
        self._at = 0  # the next line to look at; the pass ends behind the last one
        self._lines = 0  # flows that stay in the table in this pass
        self._best = np.empty((0, WORDS), np.int64)
        self._clock = 0, 0  # time of the packets, and the moment when it became that
        self._exporter = exporter.Exporter(
            flow_export.kept_collector(worker), state.counts, domain=worker.queue
        )
        self._ending = False

    def step(self, worker: Worker) -> bool:
        """One bounded part; whether there is more to do."""
        now = self._now(worker)
        if worker.ending and not self._ending:  # now all flows are due
            self._ending = True
            self._begin_pass()
        self._look(now, worker.ending)
        self._send()
        waiting = int(self._state.marks[HEAD] - self._state.counts[exporter.TAKEN])
        more = waiting > 0 or self._at < len(self._state.flows)
        if not more:
            self._end_pass()
            if worker.ending:
                self._exporter.refresh()
                self._exporter.close()
        for number, counter in self._counters.items():
            counter.array[0] = max(counter.value, int(self._state.counts[number]))
        return more

    def _now(self, worker: Worker) -> int:
        """The time of the packets, which goes on when a port with times of its own is silent."""
        moment = time.monotonic_ns()
        if worker.time != self._clock[0]:
            self._clock = worker.time, moment
        return self._clock[0] + moment - self._clock[1]

    def _look(self, now: int, ending: bool) -> None:
        """Look at the next lines, and move the records that are due into the queue."""
        state = self._state
        start, stop = self._at, min(self._at + CHUNK, len(state.flows))
        room = QUEUE - int(state.marks[HEAD] - state.counts[exporter.TAKEN])
        rows = state.flows[start:stop]
        there = np.flatnonzero(rows[:, CHECK] & 1)
        last, first = rows[there, LAST], rows[there, FIRST]
        is_idle = now - last >= self._idle
        is_due = is_idle | (first != 0) & (now - first >= self._active) | ending
        due = there[is_due][: min(MOST, room)]
        if len(due) < np.count_nonzero(is_due):  # go on behind the last one
            stop = start + (int(due[-1]) + 1 if len(due) else 0)
            there = there[there < stop - start]
        self._rank(rows[there])
        self._move(rows, due, start, now, ending)
        check = state.flows[start:stop, CHECK]
        empty = np.flatnonzero((check[:-1] == GONE) & (check[1:] == 0))
        check[empty] = 0  # no search has to go on behind them
        self._lines += int(np.count_nonzero(check & 1))
        self._at = stop

    def _move(
        self, rows: NDArray[np.int64], due: NDArray[np.int64], start: int, now: int, ending: bool
    ) -> None:
        state = self._state
        some = rows[due]
        unsent = some[:, PACKETS] > some[:, SENT_PACKETS]
        rows[due[~unsent], CHECK] = GONE  # an idle flow whose last record left before
        due, some = due[unsent], some[unsent]
        head = int(state.marks[HEAD])
        places = np.arange(head, head + len(due)) & (QUEUE - 1)
        entries = np.zeros((len(due), QUEUE_WORDS), np.int64)
        entries[:, :KEY] = some[:, :KEY]
        entries[:, messages.PACKETS] = some[:, PACKETS] - some[:, SENT_PACKETS]
        entries[:, messages.OCTETS] = some[:, OCTETS] - some[:, SENT_OCTETS]
        entries[:, messages.FIRST] = some[:, FIRST]
        entries[:, messages.LAST] = some[:, LAST]
        entries[:, messages.FLAGS] = some[:, FLAGS]
        is_idle = now - some[:, LAST] >= self._idle
        still = messages.FORCED if ending else messages.ACTIVE
        entries[:, messages.REASON] = np.where(is_idle, messages.IDLE, still)
        entries[:, LINE] = start + due
        entries[:, ACTIVE_AGAIN] = ~is_idle & (not ending)
        state.queue[places] = entries
        state.marks[MOVING_FROM] = head
        state.marks[MOVING] = len(due)
        _leave(state, entries)
        state.marks[HEAD] = head + len(due)
        state.marks[MOVING] = 0

    def _send(self) -> None:
        """Send what is in the queue."""
        state = self._state
        tail = int(state.counts[exporter.TAKEN])
        count = min(int(state.marks[HEAD]) - tail, MOST)
        self._exporter.ignored = state.flows_without_place.value
        if count:
            places = np.arange(tail, tail + count) & (QUEUE - 1)
            self._exporter.send(state.queue[places][:, : messages.COLUMNS])
        else:
            self._exporter.settle()
            self._exporter.refresh(if_due=True)
        if self._exporter.error != self._told:
            self._told = self._exporter.error
            self._log.warning("flow records are not exported: %s", self._told)

    def _rank(self, rows: NDArray[np.int64]) -> None:
        """Keep the largest flows of this pass."""
        if len(rows) > self._top:
            rows = rows[np.argpartition(rows[:, BYTES], -self._top)[-self._top :]]
        best = np.concatenate([self._best, rows])
        self._best = best[np.argsort(-best[:, BYTES], kind="stable")[: self._top]]

    def _end_pass(self) -> None:
        """All lines were looked at: show the largest flows, and begin anew."""
        self._table.write([(label(row), (row[PACKETS], row[BYTES])) for row in self._best])
        self._in_table.set(self._lines)
        self._begin_pass()

    def _begin_pass(self) -> None:
        self._best = self._best[:0]
        self._at = self._lines = 0


_sweepers: WeakKeyDictionary[Worker, Sweeper] = WeakKeyDictionary()


def tick(worker: Worker, state: Any) -> bool:
    """Do a bounded part of what is due; whether there is more."""
    if worker.rehearsal:
        return False
    sweeper = _sweepers.get(worker)
    if sweeper is None:
        sweeper = _sweepers[worker] = Sweeper(worker, state)
    return sweeper.step(worker)
