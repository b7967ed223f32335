"""Whose segments are alive, and clearing up those of the dead.

Alive means: some process holds the lock. The kernel says which, or, to a process
in another PID namespace, the header.
Looking takes a shared lock for a moment, so that two who look do not take each
other for an owner.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from ringline.shm import hugepages
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.header import addresses_in, check_instance, read_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SHARED_MEMORY = "/dev/shm"
DESCRIPTORS = "descriptors"  # the segment that says which devices reach the instance's memory

# How often one tries for a lock that a looker holds for a moment.
_ATTEMPTS = 40
_BETWEEN_ATTEMPTS = 0.005  # seconds


def segments_of(instance: str) -> list[str]:
    """Paths of everything named like a segment of `instance`, whatever is in it, in
    shared memory and in every mounted hugetlbfs."""
    check_instance(instance)
    prefix = f"ringline.{instance}."
    paths = []
    for directory in [SHARED_MEMORY, *(path for path, _ in hugepages.mounts())]:
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        paths += [f"{directory}/{name}" for name in sorted(names) if name.startswith(prefix)]
    return paths


def live_owner(instance: str) -> int | None:
    """The process that runs `instance`: its id, 0 if that is not to be seen, None for nobody.

    Raises EnvironmentLacks when another user's segments have the name.
    """
    for path in segments_of(instance):
        pid = owner_of(path)
        if pid is not None:
            return pid
    return None


def owner_of(path: str) -> int | None:
    """The process that holds the lock of one segment, as `live_owner` says it."""
    fd = _open(path)
    if fd is None:
        return None
    try:
        if _lock(fd, fcntl.LOCK_SH):
            return None
        header = read_header(fd)
        return _holder(fd) or (header.owner_pid if header is not None else 0)
    finally:
        os.close(fd)


def already_runs(instance: str, path: str, pid: int) -> EnvironmentLacks:
    """The sentence that refuses a second instance of one name."""
    who = f"process {pid}" if pid else "a process that does not say which it is"
    return EnvironmentLacks(
        f"the instance {instance!r} already runs: {who} holds {path}; "
        "stop it, or give this one another name"
    )


def remove_stale(instance: str, stop_dma: Callable[[str], None]) -> list[str]:
    """Remove the segments that a dead owner of `instance` left; returns their paths.

    `stop_dma` is called first with each PCI address that the header of `.descriptors`
    lists: as long as a device may write into this memory it must not go. No other
    header is believed, for workers can write them, and the devices of others would be
    stopped. If it raises, nothing is removed. Raises EnvironmentLacks when the instance
    is alive.
    """
    locked: list[tuple[str, int]] = []
    try:
        for path in segments_of(instance):
            fd = _open(path)
            if fd is None:
                continue
            locked.append((path, fd))
            if not _lock_in_time(fd):
                raise already_runs(instance, path, owner_of(path) or 0)
        addresses: dict[str, None] = {}
        for path, fd in locked:
            header = read_header(fd)
            if header is not None and path.endswith(f".{DESCRIPTORS}"):
                addresses.update(dict.fromkeys(addresses_in(header)))
        for address in addresses:
            stop_dma(address)
        return [path for path, fd in locked if remove_file(path, os.fstat(fd))]
    finally:
        for _, fd in locked:
            os.close(fd)


def _open(path: str) -> int | None:
    """A descriptor to lock the file with; None when there is no such plain file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise EnvironmentLacks(
            f"{path} belongs to another user: give this instance another name"
        ) from None
    except OSError:
        return None  # gone meanwhile, or a link or socket that nobody can run from
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _holder(fd: int) -> int:
    """The process that the kernel knows to hold an exclusive flock on this file, or 0."""
    status = os.fstat(fd)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with open("/proc/locks", encoding="ascii") as table:
        for line in table:
            # 1: FLOCK  ADVISORY  WRITE 4711 00:16:42 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[3] == "WRITE" and words[5] == file:
                return int(words[4])
    return 0


def _lock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_in_time(fd: int) -> bool:
    for _ in range(_ATTEMPTS):
        if _lock(fd, fcntl.LOCK_EX):
            return True
        time.sleep(_BETWEEN_ATTEMPTS)
    return False


def is_file_at(path: str, mine: os.stat_result) -> bool:
    """Whether the file of `mine` is the one at `path` now."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def remove_file(path: str, mine: os.stat_result) -> bool:
    """Remove `path` if it is still the file of `mine`; the caller holds its lock."""
    if not is_file_at(path, mine):
        return False
    os.unlink(path)
    return True
