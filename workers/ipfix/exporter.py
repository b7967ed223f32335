"""A stream of IPFIX messages to one collector: templates, sequence numbers, and what was lost.

Guarantees (tests in tests/workers/ipfix/test_exporter.py):
 - a record is given to the collector at most once, also when the process is killed
   (test_a_killed_exporter_repeats_no_record)
 - each record is counted once, as exported or as lost (test_every_record_is_counted)
 - an error of the socket never gets out (test_a_collector_that_is_away_and_comes_back)
 - no record is sent after templates that nobody took (test_records_wait_for_their_templates)

What must outlast a process is in an array that the user of this class gives: `counts`. Before a
message is sent, its records are counted as taken, then as sent or lost, and with the next message
as exported: only then it is known that nobody refused them. What is taken and nothing else was in
the hands of a process that was killed, and is counted as lost.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from ringline.shm.errors import reason_of
from ringline.workers.ipfix import messages
from ringline.workers.named import steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ringline.workers.ipfix.collector import Link, Target

# Numbers in `counts`: flow records taken, sent with the last message, exported, lost; the packets
# and octets of the lost ones; messages and octets that were sent; records of statistics.
TAKEN, SENT, EXPORTED, LOST, LOST_PACKETS, LOST_OCTETS, MESSAGES, OCTETS, STATISTICS = range(9)
COUNTS = 9

# A collector that restarts knows no templates (section 8.4): they are repeated.
TEMPLATE_SECONDS = 60.0
TEMPLATE_MESSAGES = 1000

PER_SECOND = 1000  # messages: a socket of Linux holds 92 of them until its program reads
BURST = 16


class Exporter:
    """A stream to `target` in the observation domain `domain`.

    counts: int64 array of COUNTS words, which this class changes.
    now: seconds since 1970, for the export time; None: the time of the machine.
    replace: a file that is there is replaced.
    """

    def __init__(
        self,
        target: Target,
        counts: NDArray[np.int64],
        *,
        domain: int = 0,
        now: int | None = None,
        replace: bool = False,
        message_bytes: int = messages.MESSAGE_BYTES,
    ) -> None:
        self._target = target
        self._counts = counts
        self._domain = domain
        self._now = now
        self._replace = replace
        self._message_bytes = message_bytes
        self._link: Link | None = None
        self._templates_at = 0.0
        self._templates_left = 0  # messages until the next templates
        self._last = 0, 0  # packets and octets of the last message
        self.ignored = 0  # packets that were not counted for a flow
        self.error = ""  # why the last message could not be sent
        self._accept()
        counts[LOST] += max(0, counts[TAKEN] - counts[EXPORTED] - counts[LOST])

    @property
    def sequence(self) -> int:
        """The number of data records before the next message."""
        return int(self._counts[TAKEN] + self._counts[STATISTICS])

    def send(self, flows: NDArray[np.int64]) -> None:
        """Send flows: rows as in messages.py. What cannot be sent is counted."""
        for _ in self._messages(flows):
            pass

    def send_paced(self, flows: NDArray[np.int64]) -> None:
        """Send flows slowly enough for a collector; the call lasts as long as that takes."""
        began = time.monotonic()
        for sent, _ in enumerate(self._messages(flows), 1):
            steps.step()
            early = began + sent / PER_SECOND - time.monotonic()
            if not self._target.path and sent % BURST == 0 and early > 0:
                time.sleep(early)

    def _messages(self, flows: NDArray[np.int64]) -> Iterator[None]:
        for sets, rows in messages.flow_sets(flows, self._message_bytes):
            if self._templates_left <= 0 or self._is_time():
                self.refresh()
            counts, before = self._counts, self.sequence
            packets = int(rows[:, messages.PACKETS].sum())
            octets = int(rows[:, messages.OCTETS].sum())
            counts[TAKEN] += len(rows)
            # A collector that did not get the templates could not read the records.
            if self._templates_left > 0 and self._send(sets, before):
                counts[SENT] = len(rows)
                self._last = packets, octets
            else:
                self._lose(len(rows), packets, octets)
            self._look()
            yield

    def _is_time(self) -> bool:
        return time.monotonic() - self._templates_at > TEMPLATE_SECONDS

    def refresh(self, *, if_due: bool = False) -> None:
        """Send the templates and the statistics; `if_due`: only when it is time to."""
        if if_due and self._templates_left > 0 and not self._is_time():
            return
        counts, before = self._counts, self.sequence
        exported = counts[EXPORTED] + counts[SENT]
        metering = [counts[MESSAGES], counts[OCTETS], exported, self.ignored]
        lost = counts[[LOST, LOST_PACKETS, LOST_OCTETS]]
        sets = messages.templates()
        sets += messages.statistics(self._domain, self._domain, metering, list(lost))
        counts[STATISTICS] += 2
        self._templates_at, self._templates_left = time.monotonic(), TEMPLATE_MESSAGES
        if not self._send(sets, before):
            self._templates_left = 0
        self._look()

    def _send(self, sets: bytes, sequence: int) -> bool:
        """Send a message; whether the machine took it."""
        now = int(time.time()) if self._now is None else self._now
        data = messages.message(sets, seconds=now, sequence=sequence, domain=self._domain)
        self._templates_left -= 1
        try:
            if self._link is None:
                self._link = self._target.connect(replace=self._replace)
                self._replace = False
            try:
                self._link.send(data)
            except ConnectionRefusedError:  # of the message before
                self._is_refused()
                self._link.send(data)
        except OSError as error:
            self.error = reason_of(error)
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ENOSPC):
                self._close()
            return False
        self._accept()
        self._counts[MESSAGES] += 1
        self._counts[OCTETS] += len(data)
        return True

    def settle(self) -> None:
        """Count the records of the last message, if nobody has refused them until now."""
        self._look()
        self._accept()

    def _accept(self) -> None:
        """The records of the last message are exported."""
        self._counts[EXPORTED] += self._counts[SENT]
        self._counts[SENT] = 0
        self._last = 0, 0

    def _look(self) -> None:
        """Find out whether the last message was refused."""
        if self._link is not None and self._link.refused():
            self._is_refused()

    def _is_refused(self) -> None:
        """Nobody took the last message: count its records, and begin with the templates again."""
        self.error = "the port of the collector is closed"
        self._templates_left = 0
        self._lose(int(self._counts[SENT]), *self._last)
        self._counts[SENT] = 0
        self._last = 0, 0

    def _lose(self, records: int, packets: int, octets: int) -> None:
        self._counts[LOST] += records
        self._counts[LOST_PACKETS] += packets
        self._counts[LOST_OCTETS] += octets

    def _close(self) -> None:
        """Leave the socket; the next message opens another one."""
        if self._link is not None:
            self._link.close()
            self._link, self._templates_left = None, 0

    def close(self) -> None:
        """Close the stream."""
        self.settle()
        self._close()
