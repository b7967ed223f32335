"""What `ringline analyze` leaves behind: a folder with a JSON report and a CSV file for each table.

Only one analysis writes into a folder: it holds a lock on the report. A folder that has
something else in it is not touched.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

from ringline.pipeline.analysis.result import Result
from ringline.pipeline.telemetry.version import version
from ringline.shm.errors import EnvironmentLacks, UsageError, reason_of
from ringline.shm.text import printable

REPORT = "report.json"
_LOCK = ".ringline-analysis"


class Folder:
    """The folder at `path`, which is made if it is not there. A context manager.

    Raises UsageError when it has other files, or another analysis writes into it;
    EnvironmentLacks when it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        shown = printable(path)
        if not path:
            raise UsageError("-w needs the path of a folder, not an empty one")
        try:
            os.makedirs(path, exist_ok=True)
            there = os.listdir(path)
        except FileExistsError:
            raise UsageError(f"{shown}: is a file; -w names a folder for the results") from None
        except NotADirectoryError as error:
            raise UsageError(f"{shown}: cannot be made: {reason_of(error)}") from None
        except OSError as error:
            raise EnvironmentLacks(f"{shown}: cannot be made: {reason_of(error)}") from None
        if there and _LOCK not in there:
            raise UsageError(
                f"{shown}: has files that no analysis wrote; name a new or an empty folder"
            )
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(os.path.join(path, _LOCK), flags, 0o666)
        except OSError as error:
            raise EnvironmentLacks(f"{shown}: cannot be written: {reason_of(error)}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise UsageError(
                f"{shown}: another analysis writes into this folder; wait for it, or name another"
            ) from None

    def clear(self) -> None:
        """Remove what an earlier analysis left."""
        for name in os.listdir(self.path):
            if name == REPORT or name.endswith((".csv", ".new")):
                os.unlink(os.path.join(self.path, name))

    def write(self, report: dict[str, Any]) -> None:
        """Write the report, whole or not at all. Raises EnvironmentLacks."""
        path = os.path.join(self.path, REPORT)
        try:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump(report, file, indent=2)
                file.write("\n")
            os.replace(f"{path}.new", path)
        except OSError as error:
            raise EnvironmentLacks(
                f"{printable(path)}: cannot be written: {reason_of(error)}"
            ) from None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *failure: object) -> None:
        os.close(self._fd)


def report_of(result: Result, code: int) -> dict[str, Any]:
    """The result as JSON values; the same captures give the same, except under `run`."""
    tables = {
        name: {
            "columns": table["columns"],
            "rows": table["rows"],
            "file": table["file"] and os.path.basename(table["file"]),
            "first": table["first"],
        }
        for name, table in result.tables.items()
    }
    return {
        "ringline": version(),
        "plugin": result.plugin,
        "tier": result.tier,
        "is_complete": not result.broken and not result.unfinished,
        "captures": result.captures,
        "broken": {printable(path): why for path, why in sorted(result.broken.items())},
        "unfinished": result.unfinished,
        "first": result.first,
        "last": result.last,
        "counters": {name: result.counters[name] for name in COUNTERS if name in result.counters},
        "wire_bytes": result.wire_bytes,
        "drops": result.drops,
        "named": result.named,
        "headings": result.headings,
        "tables": tables,
        "complaints": [
            {"capture": path, "packet": packet, "what": what}
            for path, packet, what in result.complaints
        ],
        "remarks": result.remarks,
        "run": {
            "exit_code": code,
            "seconds": round(result.seconds, 3),
            "tasks": result.tasks,
            "redone": result.redone,
            "nanoseconds_in_plugin": round(result.nanoseconds),
        },
    }


# Those that depend on the captures alone, not on how they were divided or on the machine.
COUNTERS = (
    *("packets", "bytes", "forwarded", "dropped", "plugin_errors", "verdict_errors"),
    *("tick_errors", "created"),
)
