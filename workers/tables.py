"""The layout of a plugin's tables and histograms in its worker slot.

A table consists of rows of `columns` 64-bit words. Row 0 is the heading: word 0 is a
sequence number, odd while the table is being written, word 1 the number of rows in use.
Every other row is a label of LABEL_BYTES (UTF-8, padded with zeros) and one word per
value. The type of the slot's entry holds the names: of the label, then of the values.

A counter with a label is one word for each value of the label, then the values, VALUE_BYTES each.

A gauge is a float of 64 bits.

A histogram is one word for the sum of all values, then one word per bucket. Bucket b
counts the values below 2^b that no earlier bucket counts; the last bucket counts the rest.

Metrics and reports read slots with this module. They do not trust what they read: a
plugin can write anything there.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What a snapshot copies of the values that a plugin named, in words of 8 bytes. `Worker.table`
# refuses a table that is larger, so that no row is cut off in silence
# (tests/workers/test_worker.py: test_a_table_that_would_be_exported_in_part_is_refused).
TABLE_WORDS = 4096  # of one table: 272 rows of one value, 255 of two
SLOT_WORDS = 4 * TABLE_WORDS  # of everything that the plugin of one worker named, except state

# The tables of one worker make no more series than this: with the shortest names, a row has 27
# values (tests/pipeline/telemetry/test_metrics.py: test_the_series_of_tables_are_bounded).
SERIES_MAX = 11_000

LABEL_BYTES = 112  # enough for two IPv6 addresses with ports
LABEL_WORDS = LABEL_BYTES // 8
HEADING_ROWS = 1

VALUES_MAX = 64  # of a counter with a label
VALUE_BYTES = 48  # of one of them
COUNTERS_WORDS = 1 + VALUE_BYTES // 8  # for one of them


def columns_of(names: Sequence[str]) -> int:
    """The number of 64-bit words in a row; `names` are those of the label and the values."""
    return LABEL_WORDS + len(names) - 1


def rows_max(columns: int, words: int = TABLE_WORDS) -> int:
    """How many rows of `columns` words fit into `words`, beside the heading."""
    return max(0, words // columns - HEADING_ROWS)


def pack_label(label: str) -> bytes:
    """The LABEL_BYTES bytes of a label. A label that is too long is cut between characters."""
    data = label.encode("utf-8", "replace")[:LABEL_BYTES]
    return data.decode("utf-8", "ignore").encode().ljust(LABEL_BYTES, b"\0")


def read_table(
    type_: str, columns: int, words: Sequence[int]
) -> list[tuple[str, list[int]]] | None:
    """The rows of a table as (label, values), from its entry's type, columns and words.

    None while the table is being written (try again), or when the words are not a table.
    """
    names = type_.split()
    heading = words[:columns]
    if len(names) < 2 or columns != columns_of(names) or len(heading) < 2 or heading[0] % 2:
        return None
    rows = []
    for number in range(min(heading[1], len(words) // columns - HEADING_ROWS)):
        start = (HEADING_ROWS + number) * columns
        row = words[start : start + columns]
        data = b"".join(word.to_bytes(8, "little") for word in row[:LABEL_WORDS])
        label = data.rstrip(b"\0").decode("utf-8", "replace")
        rows.append((label, list(row[LABEL_WORDS:])))
    return rows


def is_value(value: object) -> bool:
    """Whether `value` can be a value of the label of a counter."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and 1 <= len(value.encode("utf-8", "replace")) <= VALUE_BYTES
    )


def pack_value(value: str) -> bytes:
    """The VALUE_BYTES bytes of a value of a label."""
    return value.encode("utf-8", "replace").ljust(VALUE_BYTES, b"\0")


def read_counters(words: Sequence[int]) -> list[tuple[str, int]]:
    """(value of the label, count) of a counter with a label; without values that a worker has
    not written yet. Of two values that are equal the first is there."""
    number = len(words) // COUNTERS_WORDS
    each = COUNTERS_WORDS - 1
    found: dict[str, int] = {}
    for index in range(number):
        start = number + each * index
        data = b"".join(word.to_bytes(8, "little") for word in words[start : start + each])
        value = data.rstrip(b"\0").decode("utf-8", "replace")
        if value:
            found.setdefault(value, words[index])
    return list(found.items())


def read_gauge(word: int) -> float:
    """The value of a gauge: an integer if it is a whole number that a float holds exactly."""
    value: float = struct.unpack("<d", word.to_bytes(8, "little"))[0]
    return int(value) if value.is_integer() and abs(value) <= 1 << 53 else value


def read_histogram(words: Sequence[int]) -> tuple[int, list[int]]:
    """(sum of the values, count per bucket)."""
    return words[0], list(words[1:])
