"""The tables that a plugin presents at the end of an analysis, as CSV files (RFC 4180)."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ringline.shm import slots
from ringline.shm.errors import EnvironmentLacks, PluginError, reason_of

SHOWN_ROWS = 100  # of each table, which the report has
_PIECE_ROWS = 4096


def write(spec: str, made: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """Write each table to the file NAME.csv in `folder`; None: nowhere. Returns a description of
    each: its columns, the number of its rows, the first of them, and its file.

    Raises PluginError when a table is none, EnvironmentLacks when a file cannot be written.
    """
    described: dict[str, Any] = {}
    for name, columns in made.items():
        if not slots.is_name(name) or not isinstance(columns, Mapping) or not columns:
            raise PluginError(
                f"plugin {spec}: present must return a dict of tables by name, each a dict of "
                f"columns by name, not {name!r}: {type(columns).__name__}"
            )
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise PluginError(
                f"plugin {spec}: the columns of the table {name} must have the same length, not "
                f"{', '.join(map(str, sorted(lengths)))}"
            )
        file = None if folder is None else os.path.join(folder, f"{name}.csv")
        if file is not None:
            _write(file, columns)
        described[name] = {
            "columns": list(columns),
            "rows": lengths.pop(),
            "first": [list(row) for row in _rows(columns, SHOWN_ROWS)],
            "file": file,
        }
    return described


def _rows(columns: Mapping[str, Any], most: int | None = None) -> Iterator[tuple[Any, ...]]:
    """The rows, as Python numbers and strings; masked ones and None are None."""
    length = len(next(iter(columns.values())))
    end = length if most is None else min(most, length)
    for start in range(0, end, _PIECE_ROWS):
        stop = min(start + _PIECE_ROWS, end)
        pieces = [column[start:stop] for column in columns.values()]
        lists = [piece.tolist() if hasattr(piece, "tolist") else piece for piece in pieces]
        yield from zip(*lists, strict=True)


def _write(file: str, columns: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    new = f"{file}.new"
    try:
        with open(new, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(columns)
            writer.writerows(_rows(columns))
        os.replace(new, file)
    except OSError as error:
        raise EnvironmentLacks(f"{file}: cannot be written: {reason_of(error)}") from None
    finally:
        with contextlib.suppress(OSError):  # after a failure it is there still
            os.unlink(new)
