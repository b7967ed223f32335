"""Find the live owner of an instance's segments, and remove the segments of a dead owner.

An owner is alive while it holds the exclusive flock. Its process id comes from /proc/locks, or
from the segment header when the owner is in another PID namespace. A check takes a shared lock
for a moment, so two concurrent checks do not take each other for an owner.

Guarantees (tests in tests/shm/test_owners.py):
 - segments of a dead owner are removed only after the DMA of its devices has stopped
   (test_segments_of_a_dead_owner_are_removed_after_its_devices_are_stopped,
   test_nothing_is_removed_when_a_device_cannot_be_stopped)
 - only the header of `.descriptors` names devices, because workers can write to the headers of
   other segments (test_a_device_that_a_worker_names_is_left_alone)
 - a file that another user made, or can write, is not read, locked or removed, and stops no
   device (test_a_planted_file_is_refused_and_stops_no_device)
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from ringline.shm import hugepages
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.file_owner import refuse_foreign, user_name
from ringline.shm.header import addresses_in, check_instance, read_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SHARED_MEMORY = "/dev/shm"
DESCRIPTORS = "descriptors"  # the segment whose header names the devices of the instance

# Attempts to get a lock that a check in another process may hold for a moment.
_ATTEMPTS = 40
_BETWEEN_ATTEMPTS = 0.005  # seconds


def segments_of(instance: str) -> list[str]:
    """Paths of all files named like a segment of `instance`, in /dev/shm and in every mounted
    hugetlbfs. Their contents are not checked."""
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
    """The id of the process that runs `instance`, 0 if the id is unknown, None if none runs it.

    Raises EnvironmentLacks when segments of this name belong to another user.
    """
    for path in segments_of(instance):
        pid = owner_of(path)
        if pid is not None:
            return pid
    return None


def owner_of(path: str) -> int | None:
    """The process that holds the lock of the segment at `path`: an id, 0 or None, as in
    `live_owner`."""
    fd = _open(path)
    if fd is None:
        return None
    try:
        if _lock(fd, fcntl.LOCK_SH):
            return None
        header = read_header(fd)
        return holder(fd) or (header.owner_pid if header is not None else 0)
    finally:
        os.close(fd)


def already_runs(instance: str, path: str, pid: int) -> EnvironmentLacks:
    """The error for a second instance of the same name."""
    who = f"process {pid}" if pid else "a process whose id is unknown"
    return EnvironmentLacks(
        f"the instance {instance!r} already runs: {who} holds {path}; "
        "stop it, or give this instance another name"
    )


def remove_stale(instance: str, stop_dma: Callable[[str], object]) -> list[str]:
    """Remove the segments that a dead owner of `instance` left; returns their paths.

    First calls `stop_dma` with each PCI address in the header of `.descriptors`: memory must not
    be freed while a device may write to it. If it raises, nothing is removed. Only this header
    is trusted: workers can write to theirs, and could name devices of other instances.
    Raises EnvironmentLacks when the instance is alive, or when another user can have made one
    of the files.
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
    """A descriptor of the file, to lock it; None when there is no regular file at `path`.

    Raises EnvironmentLacks when another user made the file, or can write to it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise EnvironmentLacks(
            f"{path} belongs to {_user_of(path)}: give this instance another name"
        ) from None
    except OSError:
        return None  # removed meanwhile, or a link or a socket, which is never a segment
    facts = os.fstat(fd)
    try:
        if stat.S_ISREG(facts.st_mode):
            refuse_foreign(path, facts)
            fd, kept = -1, fd
            return kept
    finally:
        if fd >= 0:
            os.close(fd)
    return None


def _user_of(path: str) -> str:
    try:
        return user_name(os.lstat(path).st_uid)
    except OSError:
        return "another user"


def holder(fd: int) -> int:
    """The process that holds an exclusive flock on this file by /proc/locks, or 0."""
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
    """Whether `path` still names the file with the status `mine`."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def remove_file(path: str, mine: os.stat_result) -> bool:
    """Remove `path` if it still names the file with the status `mine`, and say whether it did.
    The caller holds the file's lock."""
    if not is_file_at(path, mine):
        return False
    os.unlink(path)
    return True
