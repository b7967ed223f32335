"""What `ringline analyze` leaves behind: a folder with a JSON report and a file for each table.

Only one analysis writes into a folder: it locks a file there. That file lists what analyses left,
so the next one replaces nothing else. New files are made in a folder of their own, and moved when
the last one is there. What is finished is kept in another folder, until a result is complete.

Guarantees (tests in tests/pipeline/commands/test_analyze.py):
 - an analysis that fails leaves the results of an earlier one, and no folder that it made
   (test_an_analysis_that_fails_leaves_what_was_there)
 - so does one that was interrupted, unless the earlier one was interrupted too and this one has
   finished captures
   (tests/pipeline/commands/test_analyze_resume.py: test_an_interruption_leaves_an_earlier_result)
 - the files of others stay (test_files_of_others_in_the_folder_stay)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ringline.pipeline.analysis.result import Result
from ringline.pipeline.telemetry.version import version
from ringline.shm.errors import EnvironmentLacks, UsageError, reason_of
from ringline.shm.text import printable
from ringline.workers.analysis.tables.formats import FORMATS

REPORT = "report.json"
_LOCK = ".ringline-analysis"
_NEW = ".ringline-new"
_FINISHED = ".ringline-finished"


class Folder:
    """The folder at `path`, which is made if it is not there. A context manager.

    new: the path of a folder in it, for the files of this analysis until `write`.
    finished: the path of another one, for what is finished (finished.py); it stays until a result
        is complete.

    Raises UsageError when it has other files, or another analysis writes into it;
    EnvironmentLacks when it cannot be made or written to.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.new = os.path.join(path, _NEW)
        self.finished = os.path.join(path, _FINISHED)
        shown = printable(path)
        if not path:
            raise UsageError("-w needs the path of a folder, not an empty one")
        self._made = _missing(path)  # by this object; it removes them if nothing is written
        try:
            os.makedirs(path, exist_ok=True)
            there = os.listdir(path)
        except FileExistsError:
            raise UsageError(f"{shown}: is a file; -w names a folder for the results") from None
        except NotADirectoryError as error:
            raise UsageError(f"{shown}: cannot be made: {reason_of(error)}") from None
        except OSError as error:
            self._remove_folders()
            raise EnvironmentLacks(f"{shown}: cannot be made: {reason_of(error)}") from None
        if there and _LOCK not in there:
            raise UsageError(
                f"{shown}: has files that no analysis wrote; name a new or an empty folder"
            )
        self._lock = os.path.join(path, _LOCK)
        self._keeps_lock = _LOCK in there
        self._is_written = False
        try:
            self._fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._remove_folders()
            raise EnvironmentLacks(f"{shown}: cannot be written: {reason_of(error)}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_nlink == 0:
                raise BlockingIOError  # another analysis has just failed, and removed it
        except BlockingIOError:
            os.close(self._fd)
            raise UsageError(
                f"{shown}: another analysis writes into this folder; wait for it, or name another"
            ) from None
        except OSError as error:
            self._close()
            raise EnvironmentLacks(f"{shown}: cannot be locked: {reason_of(error)}") from None
        try:
            shutil.rmtree(self.new, ignore_errors=True)  # of an analysis that was killed
            os.mkdir(self.new)
        except OSError as error:
            self._close()
            raise EnvironmentLacks(f"{shown}: cannot be written: {reason_of(error)}") from None

    @property
    def has_earlier(self) -> bool:
        """Whether the result of an earlier analysis is there, and none of this one."""
        return not self._is_written and self._earlier() is not None

    def _earlier(self) -> dict[str, Any] | None:
        """The report that is there, if it is one."""
        try:
            with open(os.path.join(self.path, REPORT), encoding="utf-8") as file:
                report = json.load(file)
        except (OSError, ValueError):
            return None
        return report if isinstance(report, dict) else None

    def write(self, report: dict[str, Any]) -> bool:
        """Put the files in `new` and the report in the place of what an earlier analysis left.
        Returns false, and changes nothing, when what is there tells more (`_tells_more`).
        Raises EnvironmentLacks; when the new report has no room, nothing has changed."""
        before = self._earlier()
        if before is not None and _tells_more(before, report):
            return False
        path = os.path.join(self.path, REPORT)
        try:
            with open(os.path.join(self.new, REPORT), "w", encoding="utf-8") as file:
                json.dump(report, file, indent=2)
                file.write("\n")
            tables = sorted(set(os.listdir(self.new)) - {REPORT})
            for name in tables:
                path = os.path.join(self.path, name)
                if os.path.isdir(path):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            earlier = self._listed()
            path = self._lock
            self._list(sorted({*earlier, *tables, REPORT}))
            self._keeps_lock = self._is_written = True
            for name in (REPORT, *earlier):
                path = os.path.join(self.path, name)
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(path)
            for name in (*tables, REPORT):  # who finds a report finds its tables too
                path = os.path.join(self.path, name)
                os.replace(os.path.join(self.new, name), path)
            path = self._lock
            self._list([*tables, REPORT])
            if report.get("is_complete"):
                shutil.rmtree(self.finished, ignore_errors=True)
        except OSError as error:
            raise EnvironmentLacks(
                f"{printable(path)}: cannot be written: {reason_of(error)}"
            ) from None
        return True

    def _listed(self) -> list[str]:
        """The tables that analyses left here."""
        text = os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode(errors="replace")
        ends = tuple(f".{form}" for form in FORMATS)
        return [it for it in text.splitlines() if it.endswith(ends) and "/" not in it]

    def _list(self, names: Sequence[str]) -> None:
        data = "".join(f"{name}\n" for name in names).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def _remove_folders(self) -> None:
        for folder in self._made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def _close(self) -> None:
        shutil.rmtree(self.new, ignore_errors=True)
        if not self._keeps_lock and not os.path.isdir(self.finished):
            with contextlib.suppress(OSError):
                os.unlink(self._lock)
            self._remove_folders()
        os.close(self._fd)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *failure: object) -> None:
        self._close()


def _missing(path: str) -> list[str]:
    """The folders that must be made for `path`, the innermost first."""
    missing = []
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        missing.append(at)
        at = os.path.dirname(at)
    return missing


def _tells_more(before: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether a report must not be replaced by a new one: it has captures, and the new one has
    none, or was interrupted when this one was not."""
    if not before.get("captures"):
        return False
    if not report.get("captures"):
        return True
    return bool(report.get("unfinished")) and not before.get("unfinished")


def report_of(result: Result, code: int) -> dict[str, Any]:
    """The result as JSON values; the same captures give the same, except under `run`."""
    tables = {
        name: {
            "columns": table["columns"],
            "types": table["types"],
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
            "taken": result.taken,
            "nanoseconds_in_plugin": round(result.nanoseconds),
        },
    }


# Those that depend on the captures alone, not on how they were divided or on the machine.
COUNTERS = (
    *("packets", "bytes", "forwarded", "dropped", "plugin_errors", "verdict_errors"),
    *("tick_errors", "created"),
)
