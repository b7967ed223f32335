"""A table as JSON lines: one object for each row. A number that JSON lacks, such as infinity, is a
null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ringline.workers.analysis.tables.columns import PIECE_ROWS, Column


def write(path: str, columns: Mapping[str, Column]) -> None:
    """Write the table. Raises OSError."""
    length = len(next(iter(columns.values())))
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    with open(path, "w", encoding="utf-8") as out:
        for start in range(0, length, PIECE_ROWS):
            pieces = [values(column, start, start + PIECE_ROWS) for column in columns.values()]
            out.writelines(
                encode(dict(zip(columns, row, strict=True))) + "\n"
                for row in zip(*pieces, strict=True)
            )


def values(column: Column, start: int, stop: int) -> list[Any]:
    """The values of a column that JSON has."""
    piece = column.piece(start, stop)
    if column.type in ("f32", "f64"):
        return [it if it is not None and math.isfinite(it) else None for it in piece]
    return piece
