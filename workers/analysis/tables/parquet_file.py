"""A table as Parquet, a row group at a time: no more than one is in memory.

Times are timestamp[ns, UTC]. The extra `parquet` brings pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringline.workers.analysis.tables.columns import Column

GROUP_ROWS = 122_880  # of a row group; DuckDB reads one with each thread, and writes this many


def write(path: str, columns: Mapping[str, Column]) -> None:
    """Write the table. Raises OSError."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {name: _type(pa, column.type) for name, column in columns.items()}
    schema = pa.schema(list(types.items()))
    length = len(next(iter(columns.values())))
    with (
        open(path, "wb") as out,
        parquet.ParquetWriter(out, schema, compression="zstd") as writer,
    ):
        for start in range(0, length, GROUP_ROWS):
            stop = min(start + GROUP_ROWS, length)
            arrays = [
                _array(pa, column.piece(start, stop), types[name])
                for name, column in columns.items()
            ]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=GROUP_ROWS)


def _array(pa: Any, values: list[Any], kind: Any) -> Any:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def _type(pa: Any, name: str) -> Any:
    """pyarrow's type for the type of a column."""
    if name == "time":
        return pa.timestamp("ns", tz="UTC")
    if name in ("bool", "text"):
        return pa.bool_() if name == "bool" else pa.string()
    long = {"i": "int", "u": "uint", "f": "float"}[name[0]]
    return getattr(pa, f"{long}{name[1:]}")()
