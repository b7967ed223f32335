"""A table as CSV (RFC 4180), with a line of headings. A null is an empty field."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from ringline.workers.analysis.tables.columns import PIECE_ROWS, Column


def write(path: str, columns: Mapping[str, Column]) -> None:
    """Write the table. Raises OSError."""
    length = len(next(iter(columns.values())))
    with open(path, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        for start in range(0, length, PIECE_ROWS):
            pieces = [_fields(column, start) for column in columns.values()]
            writer.writerows(zip(*pieces, strict=True))


def _fields(column: Column, start: int) -> list[object]:
    piece = column.piece(start, start + PIECE_ROWS)
    if column.type == "bool":
        return [None if it is None else str(it).lower() for it in piece]
    return piece
