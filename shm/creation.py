"""Create the file of a segment and lock it, so that only one process owns it.

After the lock, the path must still name the same file: a process that removes stale segments can
have found the file unlocked and removed it
(tests/shm/test_owners.py: test_a_file_that_is_removed_before_it_is_locked_is_made_again).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.file_owner import why_foreign
from ringline.shm.owners import SHARED_MEMORY, already_runs, is_file_at, owner_of

# While we create a file, another process may hold its lock for a moment, to check for a live
# owner. Then we try again.
_ATTEMPTS = 100
_BETWEEN_ATTEMPTS = 0.005  # seconds


class Unavailable(EnvironmentLacks):
    """This directory has not enough memory or cannot be used; another directory may serve."""


def create_locked(instance: str, path: str) -> int:
    """Create an empty file at `path`, mode 0600, and lock it; returns its descriptor.

    Raises EnvironmentLacks when a live process holds it, Unavailable when it cannot be created.
    """
    for _ in range(_ATTEMPTS):
        try:
            fd = _create(path)
        except FileExistsError:
            pid = owner_of(path)
            if pid is not None:
                raise already_runs(instance, path, pid) from None
            time.sleep(_BETWEEN_ATTEMPTS)
        else:
            if _take(path, fd):
                return fd
            os.close(fd)
    raise EnvironmentLacks(_in_the_way(path))


def _in_the_way(path: str) -> str:
    """The sentence for a path that exists and that no run holds."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = stat.S_IFREG  # it is gone by now
    for is_kind, kind, command in (
        (stat.S_ISDIR, "a folder", "rm -r"),
        (stat.S_ISLNK, "a link", "rm"),
        (stat.S_ISFIFO, "a pipe", "rm"),
        (stat.S_ISSOCK, "a socket", "rm"),
    ):
        if is_kind(mode):
            return (
                f"{path} is in the way: it is {kind}, which no run of ringline made; remove it "
                f"({command} {path}), or give this instance another name"
            )
    return f"{path} is in the way: a run that has ended left it; start again, or remove it"


def _take(path: str, fd: int) -> bool:
    """Lock a new file; False when another process removed it first."""
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_BETWEEN_ATTEMPTS)
        else:
            return is_file_at(path, os.fstat(fd))
    return False


def no_room(error: OSError, path: str, size: int) -> Unavailable:
    """The error for `size` bytes at `path` that could not be allocated."""
    directory = os.path.dirname(path)
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if error.errno == errno.ENOSPC:
        return Unavailable(
            f"{directory} is too full for {path}: {size} bytes are needed, {free} are free; "
            f"free some or enlarge it (mount -o remount,size=1G {directory}; for a container: "
            "docker run --shm-size=1g; in Kubernetes an emptyDir with medium Memory, mounted at "
            f"{directory})"
        )
    if error.errno != errno.ENOMEM:  # it is not about room, as when no descriptor is left
        return Unavailable(f"{path} cannot be made: {reason_of(error)}")
    return Unavailable(
        f"{size} bytes of shared memory for {path} cannot be allocated ({free} are free in "
        f"{directory}): {reason_of(error)}"
    )


def _create(path: str) -> int:
    """Create a file; returns its descriptor. Raises FileExistsError, or Unavailable."""
    directory, name = os.path.split(path)
    if directory != SHARED_MEMORY and (why := _why_unsafe(directory)):
        raise Unavailable(f"{directory} {why}, so {path} would not be safe there")
    try:
        if directory == SHARED_MEMORY:
            fd = _create_posix("/" + name)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Unavailable(
                f"{directory} is not writable for user {os.geteuid()}, so {path} cannot be "
                f"created: {error.strerror}"
            ) from None
        raise Unavailable(f"{path} cannot be created: {reason_of(error)}") from None
    os.fchmod(fd, 0o600)  # the umask may have removed bits
    return fd


def _why_unsafe(directory: str) -> str:
    """Why others could replace a file in this directory; "" if they cannot."""
    try:
        return why_foreign(os.stat(directory), sticky=True)
    except OSError:
        return ""  # the attempt to create the file reports it


def _create_posix(name: str) -> int:
    # Only the supervisor creates segments: this import would only delay the start of workers.
    import posix_ipc

    try:
        shared = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=0)
    except posix_ipc.ExistentialError:
        # posix_ipc raises it for two errors and does not tell which.
        if not os.path.isdir(SHARED_MEMORY):
            raise FileNotFoundError(
                errno.ENOENT, f"there is no {SHARED_MEMORY}; mount a tmpfs there"
            ) from None
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
    except posix_ipc.PermissionsError:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name) from None
    fd: int = shared.fd
    return fd
