"""How tables and histograms of a plugin lie in its slot, for who writes and who reads.

A table is rows of `columns` 64-bit words. Row 0 is the heading: its word 0 is a
sequence number, odd while the table is being written, its word 1 the number of
rows in use. Every other row is a label of LABEL_BYTES, zero-padded UTF-8, and one
number per value. The entry's type holds the names: of the label, then of the values.

A histogram is a sum and then buckets by powers of two: bucket b counts values below 2^b
that no earlier bucket counts, the last one everything else.

Pure: metrics and reports use this too, and believe nothing that they read.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LABEL_BYTES = 112  # two IPv6 addresses with ports fit
LABEL_WORDS = LABEL_BYTES // 8
HEADING_ROWS = 1


def columns_of(names: Sequence[str]) -> int:
    """The 64-bit words of a row whose label and values are called `names`."""
    return LABEL_WORDS + len(names) - 1


def pack_label(label: str) -> bytes:
    """The label as it lies in a row; what is too long is cut between characters."""
    data = label.encode("utf-8", "replace")[:LABEL_BYTES]
    return data.decode("utf-8", "ignore").encode().ljust(LABEL_BYTES, b"\0")


def read_table(
    type_: str, columns: int, words: Sequence[int]
) -> list[tuple[str, list[int]]] | None:
    """The rows of a table as (label, values), from its entry's type, columns and words.

    None when it is being written, which the caller may try again, or when it is no table.
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


def read_histogram(words: Sequence[int]) -> tuple[int, list[int]]:
    """(sum of the values, count per bucket)."""
    return words[0], list(words[1:])
