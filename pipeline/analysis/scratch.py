"""A folder for what an analysis puts on disk meanwhile.

It has a name of its own in the folder that the user gives, and is locked while the analysis runs.
So the next analysis there finds what a killed one left, and removes it.

Guarantees (tests in tests/pipeline/analysis/test_by_flow.py):
 - nothing is left, whether the analysis ends well, fails or is interrupted (test_nothing_is_left)
 - what a killed analysis left is removed by the next one (test_what_a_killed_analysis_left_goes)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Sequence

from ringline.shm.errors import EnvironmentLacks, UsageError, reason_of
from ringline.shm.text import printable

_PREFIX = "ringline-scratch-"
_LOCK = "lock"


class Scratch:
    """A new folder in `parent`; None: in the system's folder for temporary files. A context
    manager, which removes it. Raises EnvironmentLacks when it cannot be made."""

    def __init__(self, parent: str | None) -> None:
        self._parent = os.path.abspath(parent or tempfile.gettempdir())
        self._count = 0
        _remove_abandoned(self._parent)
        try:
            while not self._is_made():
                pass
        except OSError as error:
            raise EnvironmentLacks(
                f"{printable(self._parent)}: cannot hold what an analysis needs meanwhile: "
                f"{reason_of(error)}; name another folder with --scratch"
            ) from None

    def _is_made(self) -> bool:
        """Make the folder and lock it; whether another analysis, which removes what nobody has
        locked, left it there."""
        self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent)
        try:
            self._fd = _opened(self.path, os.O_CREAT)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except FileNotFoundError:
            return False
        except OSError:
            _remove(self.path)
            raise
        if os.fstat(self._fd).st_nlink:
            return True
        os.close(self._fd)
        return False

    def new_base(self) -> str:
        """How the paths of new files begin."""
        self._count += 1
        return os.path.join(self.path, str(self._count))

    def listed(self, paths: Sequence[str]) -> str:
        """The path of a new file with a list of files here. Raises EnvironmentLacks."""
        path = os.path.join(self.path, "spills.json")
        try:
            with open(path, "w", encoding="utf-8") as file:
                json.dump([os.path.basename(it) for it in paths], file)
        except OSError as error:
            raise EnvironmentLacks(
                f"{printable(path)}: cannot be written: {reason_of(error)}"
            ) from None
        return path

    def close(self) -> None:
        """Remove the folder; may be called again."""
        if self._fd >= 0:
            _remove(self.path)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def scratch_for(folder: str | None, out: str | None, *, is_needed: bool) -> Scratch | None:
    """A folder for scratch in `folder`, or in `out`; None if there is no need and nobody names one.
    Raises UsageError when `folder` is not there, EnvironmentLacks when none can be made."""
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"{printable(folder)}: there is no such folder; make it first")
    return Scratch(folder or out) if is_needed or folder is not None else None


def make_folder(path: str | None) -> None:
    """Make the folder for tables if it is not there. Raises EnvironmentLacks."""
    try:
        if path is not None:
            os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise EnvironmentLacks(
            f"{printable(os.fspath(path or ''))}: cannot be made: {reason_of(error)}"
        ) from None


def _remove_abandoned(parent: str) -> None:
    """Remove the folders of analyses that were killed: those of this user, which nobody locks."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_unless_locked(entry)


def _remove_unless_locked(entry: os.DirEntry[str]) -> None:
    if entry.stat(follow_symlinks=False).st_uid != os.getuid():
        return
    try:
        fd = _opened(entry.path)
    except FileNotFoundError:
        os.rmdir(entry.path)  # if it is empty
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(entry.path)
    finally:
        os.close(fd)


def _opened(folder: str, flags: int = 0) -> int:
    return os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CLOEXEC | flags, 0o600)


def _remove(folder: str) -> None:
    """Remove a folder, its lock last: so what an interruption leaves is found again."""
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder), key=lambda name: name == _LOCK)
        for name in names:
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
