"""Checks the tables that a plugin presents, describes them, and writes each to a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from ringline.shm import slots
from ringline.shm.errors import EnvironmentLacks, PluginError, reason_of
from ringline.workers.analysis.tables import csv_file, formats, jsonl_file, parquet_file
from ringline.workers.analysis.tables.columns import BadPiece, Column, text_of

SHOWN_ROWS = 100  # of each table, which the report has
_WRITERS: dict[str, Callable[[str, Mapping[str, Column]], None]] = {
    "csv": csv_file.write,
    "jsonl": jsonl_file.write,
    "parquet": parquet_file.write,
}


def write(
    spec: str, made: Mapping[str, Any], folder: str | None, form: str = "csv"
) -> dict[str, Any]:
    """Write each table to a file in `folder`, such as NAME.csv; None: nowhere. Returns a
    description of each: its columns, their types, the number of its rows, the first of them, and
    its file.

    Raises PluginError when a table is none, EnvironmentLacks when a file cannot be written.
    """
    formats.check(form)
    described: dict[str, Any] = {}
    for name, given in made.items():
        columns = _columns(spec, name, given)
        file = None if folder is None else os.path.join(folder, f"{name}.{form}")
        try:
            if file is not None:
                _write(file, columns, _WRITERS[form])
            first = [jsonl_file.values(column, 0, SHOWN_ROWS) for column in columns.values()]
        except BadPiece as error:
            raise PluginError(f"plugin {spec}: the table {name}: {error}") from None
        described[name] = {
            "columns": list(columns),
            "types": [column.type for column in columns.values()],
            "rows": len(next(iter(columns.values()))),
            "first": [list(row) for row in zip(*first, strict=True)],
            "file": file,
        }
    return described


def _columns(spec: str, name: Any, given: Any) -> dict[str, Column]:
    """The columns of a table by name. Raises PluginError."""
    if not slots.is_name(name) or not isinstance(given, Mapping) or not given:
        raise PluginError(
            f"plugin {spec}: present must return a dict of tables by name, each a dict of "
            f"columns by name, not {name!r}: {type(given).__name__}"
        )
    columns: dict[str, Column] = {}
    for heading, values in given.items():
        shown = text_of(heading)
        try:
            columns[shown] = Column(values, shown)
        except TypeError as error:
            raise PluginError(
                f"plugin {spec}: the column {shown} of the table {name} {error}"
            ) from None
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise PluginError(
            f"plugin {spec}: the columns of the table {name} must have the same length, not "
            f"{', '.join(map(str, sorted(lengths)))}"
        )
    return columns


def _write(
    file: str,
    columns: Mapping[str, Column],
    writer: Callable[[str, Mapping[str, Column]], None],
) -> None:
    """Write the file whole or not at all."""
    new = f"{file}.new"
    try:
        writer(new, columns)
        os.replace(new, file)
    except OSError as error:
        raise EnvironmentLacks(f"{file}: cannot be written: {reason_of(error)}") from None
    finally:
        with contextlib.suppress(OSError):  # after a failure it is there still
            os.unlink(new)
