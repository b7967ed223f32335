"""Read the values that a plugin named in its slot: counters, gauges, histograms and tables.

A worker can write anything there: an entry that is not possible is left out, and how much is copied
is limited (tests/pipeline/telemetry/test_metrics.py: test_hostile_slots_cannot_break_the_endpoint).
"""

from __future__ import annotations

from ringline.pipeline.telemetry.snapshot import PluginHistogram, PluginMetric, PluginTable
from ringline.shm import slots
from ringline.shm.slots import SlotEntry, WorkerSlot
from ringline.shm.text import printable
from ringline.workers import tables

# A cap on what a snapshot copies, in words of 8 bytes, as are those of workers/tables.py.
HISTOGRAM_WORDS = 1 + 64  # of one histogram: its sum and the most buckets there are
COUNTERS_BYTES = 8 * tables.COUNTERS_WORDS * tables.VALUES_MAX  # of one counter with a label


class PluginValues:
    """The metrics, histograms and tables that a plugin named in its slot.

    Each entry is read once; an entry that is not valid is left out.
    """

    def __init__(self, slot: WorkerSlot) -> None:
        self.metrics: list[PluginMetric] = []
        self.histograms: list[PluginHistogram] = []
        self.tables: list[PluginTable] = []
        left = tables.SLOT_WORDS
        for entry in slot.entries():
            if entry.kind in (slots.STATE, slots.REASON) or entry.bytes < 8:
                continue
            if entry.kind == slots.COUNTERS and entry.bytes > COUNTERS_BYTES:
                continue
            words = _words(slot, entry, min(left, tables.TABLE_WORDS))
            left -= len(words)
            if entry.kind == slots.HISTOGRAM:
                self._histogram(entry, words)
            elif entry.kind == slots.TABLE:
                self._table(entry, words)
            elif entry.kind == slots.COUNTERS:
                # Two values that look the same would be the same series: keep the first.
                counts = {
                    printable(value): count
                    for value, count in reversed(tables.read_counters(words))
                }
                self.metrics += [
                    PluginMetric(entry.name, "counter", count, entry.type, value)
                    for value, count in reversed(counts.items())
                ]
            elif entry.kind == slots.GAUGE:
                self.metrics.append(PluginMetric(entry.name, "gauge", tables.read_gauge(words[0])))
            else:
                self.metrics.append(PluginMetric(entry.name, "counter", words[0]))

    def _histogram(self, entry: SlotEntry, words: list[int]) -> None:
        total, buckets = tables.read_histogram(words[:HISTOGRAM_WORDS])
        if len(buckets) > 1:
            self.histograms.append(PluginHistogram(entry.name, total, tuple(buckets)))

    def _table(self, entry: SlotEntry, words: list[int]) -> None:
        rows = tables.read_table(entry.type, entry.columns, words)
        label, *columns = entry.type.split() or [""]
        # A table that the worker is writing now is left out of this snapshot.
        if rows and len(set(columns)) == len(columns):
            named = tuple((name, tuple(values)) for name, values in rows)
            self.tables.append(PluginTable(entry.name, label, tuple(columns), named))


def _words(slot: WorkerSlot, entry: SlotEntry, most: int) -> list[int]:
    """At most `most` words from the start of an entry; of a table only whole rows."""
    if entry.kind == slots.COUNTERS:
        most = COUNTERS_BYTES // 8
    elif entry.kind != slots.TABLE:
        most = max(most, HISTOGRAM_WORDS)
    words = min(entry.bytes // 8, most)
    if entry.kind == slots.TABLE:
        words -= words % entry.columns
    return slot.values(
        SlotEntry(entry.name, entry.kind, entry.type, entry.columns, entry.offset, words * 8)
    )
