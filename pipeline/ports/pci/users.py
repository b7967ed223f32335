"""Which process uses a device: found by the lock of a BAR, and by open device files."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ringline.shm.errors import EnvironmentLacks
from ringline.shm.owners import holder

PROC = "/proc"


def lock(file: BinaryIO) -> int | None:
    """Lock a file for this process alone. None, or the process that has it; 0: it is unknown."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder(file.fileno())
    return None


def lock_all(files: Sequence[BinaryIO]) -> int | None:
    """`lock` for the BARs of a device: a driver locks the one that it maps."""
    return next((user for user in map(lock, files) if user is not None), None)


def process_with(nodes: set[str]) -> int | None:
    """Another process that has one of these device files open, as far as this user can see. Raises
    EnvironmentLacks without /proc."""
    mine = str(os.getpid())
    pids = [name for name in os.listdir(PROC) if name.isdigit()] if os.path.isdir(PROC) else []
    if not pids:
        raise EnvironmentLacks(
            f"{PROC} is not mounted here, so it is not known who uses a card: mount it (mount -t "
            f"proc none {PROC})"
        )
    for pid in (name for name in pids if name != mine):
        with contextlib.suppress(OSError):
            for file in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{file}") in nodes:
                        return int(pid)
    return None


def is_child(pid: int) -> bool:
    """Whether this process is the parent of `pid`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == os.getpid()


def process(pid: int) -> str:
    """A process in words. 0: it is not known which one."""
    return f"process {pid}" if pid else "a process whose id is unknown"
