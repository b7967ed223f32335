"""The formats of tables, and whether one can be written here."""

from __future__ import annotations

import importlib.util

from ringline.shm.errors import EnvironmentLacks, UsageError

FORMATS = ("csv", "jsonl", "parquet")  # their names, which are the ends of file names too


def check(form: str) -> None:
    """Raise UsageError when there is no such format, EnvironmentLacks when its package is
    missing."""
    if form not in FORMATS:
        raise UsageError(f"a table can be written as {', '.join(FORMATS)}, not as {form}")
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise EnvironmentLacks(
            "Parquet needs pyarrow: install ringline with its extra parquet "
            "(pip install 'ringline[parquet]'), or write csv or jsonl"
        )
