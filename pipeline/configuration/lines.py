"""The line of each key of a TOML file; tomllib tells it for errors of syntax only.

The file is valid, so each of its statements, a header or a key with its value, is valid alone:
tomllib reads them one by one.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from ringline.pipeline.configuration.toml import joined

# A longer statement, such as a list, ends the search: each of its lines is tried as its end.
STATEMENT_LINES_MAX = 300


def lines_of(text: str) -> dict[str, int]:
    """The line, from 1, where each key and table of the file begins, by its path as messages
    write it: `port.wan.queues`."""
    found: dict[str, int] = {}
    table, statement, begin = "", "", 1
    for number, line in enumerate(text.split("\n"), 1):
        begin = begin if statement else number
        statement += line + "\n"
        try:
            values = tomllib.loads(statement)
        except ValueError:
            if number - begin > STATEMENT_LINES_MAX:
                break
            continue
        if statement.lstrip().startswith("["):
            table = _enter(found, "", values, begin)
        else:
            _enter(found, table, values, begin)
        statement = ""
    return found


def _enter(found: dict[str, int], path: str, values: dict[str, Any], line: int) -> str:
    """Enter the keys of a statement; the path of the last one."""
    last = path
    for key, value in values.items():
        last = joined(path, key)
        found.setdefault(last, line)
        inner = value[0] if isinstance(value, list) and value else value  # [[a.b]] gives a list
        if isinstance(inner, dict):
            last = _enter(found, last, inner, line)
    return last


def with_line(problem: str, lines: dict[str, int]) -> str:
    """The problem `path: sentence` with the line of the path, or of the table that lacks it."""
    path = problem.partition(": ")[0]
    while path and path not in lines:
        item = re.fullmatch(r"(.*)\[\d+\]", path)
        path = item[1] if item else path.rpartition(".")[0]
    return f"{problem} (line {lines[path]})" if path else problem
