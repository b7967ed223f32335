"""A table as CSV (RFC 4180), with a line of headings. A null is an empty field.

A line ends with a newline alone, as the tools of Linux expect; with the carriage return of the RFC,
`cut` and `awk` would have one at the end of the last column.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import TextIO

from ringline.workers.analysis.tables.columns import PIECE_ROWS, Column


def write(path: str, columns: Mapping[str, Column]) -> None:
    """Write the table. Raises OSError."""
    length = len(next(iter(columns.values())))
    with open(path, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(_Lines(out))
        writer.writerow(columns)
        for start in range(0, length, PIECE_ROWS):
            pieces = [_fields(column, start) for column in columns.values()]
            writer.writerows(zip(*pieces, strict=True))


class _Lines:
    """Gets rows that end with a carriage return and a newline, so that the writer puts texts with
    either in quotes, as it does in each version of Python only then."""

    def __init__(self, out: TextIO) -> None:
        self._write = out.write

    def write(self, row: str) -> int:
        return self._write(row[:-2] + "\n")


def _fields(column: Column, start: int) -> list[object]:
    piece = column.piece(start, start + PIECE_ROWS)
    if column.type == "bool":
        return [None if it is None else str(it).lower() for it in piece]
    return piece
