"""A folder for what an engine that ringline starts on this machine writes.

It is locked as long as the process lives that has made it. So the next engine finds what a killed
process left, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile

_PREFIX = "ringline-on-"


class EngineFolder:
    """A new folder for the engine `name`: in the system's folder for temporary files, or in /tmp if
    its path would have more than `longest` bytes. Raises OSError."""

    def __init__(self, name: str, longest: int = 4096) -> None:
        parent = tempfile.gettempdir()
        prefix = f"{_PREFIX}{name}-"
        if len(os.path.join(parent, prefix)) + 8 > longest:  # mkdtemp adds 8 letters
            parent = "/tmp"
        _remove_abandoned(parent)
        while not self._is_made(prefix, parent):
            pass

    def _is_made(self, prefix: str, parent: str) -> bool:
        """Make it and lock it; whether nobody, who removes what is not locked, was faster."""
        self.path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        try:
            self._fd = _locked(self.path)
        except (FileNotFoundError, BlockingIOError):
            return False
        if os.fstat(self._fd).st_nlink:
            return True
        os.close(self._fd)
        return False

    def close(self) -> None:
        """Remove it; may be called again."""
        if self._fd >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._fd)
            self._fd = -1


def _locked(path: str) -> int:
    """A descriptor that keeps the folder locked. Raises BlockingIOError when another one does."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _remove_abandoned(parent: str) -> None:
    """Remove the folders of this user that nobody has locked."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            with contextlib.suppress(OSError):
                if (
                    entry.name.startswith(_PREFIX)
                    and entry.stat(follow_symlinks=False).st_uid == os.getuid()
                ):
                    fd = _locked(entry.path)
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(fd)
