"""System calls of Linux that Python 3.11 does not have: namespaces, mounts and signalfd."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# linux/sched.h, linux/mount.h, umount2(2), sys/signalfd.h
NEW_MOUNTS, NEW_PROCESSES, NEW_NETWORK = 0x00020000, 0x20000000, 0x40000000
_NO_SUID, _NO_DEVICES, _NO_EXECUTION, _DETACH = 2, 4, 8, 2
_RECURSIVE, _PRIVATE = 1 << 14, 1 << 18
_CLOSE_ON_EXEC = os.O_CLOEXEC
_SIGNAL_SET_BYTES, _SIGNAL_INFO_BYTES = 128, 128
FROM_KERNEL = 0x80  # SI_KERNEL: for SIGINT and SIGQUIT this is a key of the terminal

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def unshare(flags: int) -> None:
    """Move this process to new namespaces, or with NEW_PROCESSES its next children (unshare(2)).
    Raises OSError."""
    _call("unshare", flags)


def enter(namespace: int) -> None:
    """Move this process to the network namespace of this descriptor (setns(2)). Raises OSError."""
    _call("setns", namespace, NEW_NETWORK)


def current_network() -> int:
    """A new descriptor of the network namespace of this process."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This process is in the network namespace of this descriptor. What it opens stays there."""
    before = current_network()
    try:
        enter(namespace)
        yield
    finally:
        enter(before)
        os.close(before)


def private_mounts(*, shared_memory: bool = False, devices: bool = False) -> None:
    """Give this process mounts of its own, with /proc of its process namespace.

    With `shared_memory` /dev/shm is empty and ends with the last process that sees it; with
    `devices` /sys shows the interfaces of its network namespace. Raises OSError.
    """
    unshare(NEW_MOUNTS)
    _mount(b"none", b"/", None, _RECURSIVE | _PRIVATE)
    _mount(b"proc", b"/proc", b"proc")
    if shared_memory:
        _mount(b"ringline", b"/dev/shm", b"tmpfs", data=b"mode=1777")
    if devices:
        with contextlib.suppress(OSError):
            _call("umount2", b"/sys", _DETACH)
        _mount(b"sysfs", b"/sys", b"sysfs")


def _mount(
    what: bytes,
    where: bytes,
    kind: bytes | None,
    flags: int = _NO_SUID | _NO_DEVICES | _NO_EXECUTION,
    data: bytes | None = None,
) -> None:
    _call("mount", what, where, kind, ctypes.c_ulong(flags), data)


@dataclass(frozen=True)
class Signal:
    """A signal that arrived. `from_terminal`: the terminal sent it to all of its foreground."""

    number: int
    from_terminal: bool


class SignalQueue:
    """Signals as events of a descriptor (signalfd(2)). The caller has blocked them."""

    def __init__(self, numbers: Iterable[int]) -> None:
        """Raises OSError."""
        bits = sum(1 << (number - 1) for number in numbers)
        mask = bits.to_bytes(_SIGNAL_SET_BYTES, "little")
        self._fd = _call("signalfd", -1, mask, _CLOSE_ON_EXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor; it is readable when a signal waits."""
        return self._fd

    def take(self) -> Signal | None:
        """The next signal that waits, or None."""
        try:
            data = os.read(self._fd, _SIGNAL_INFO_BYTES)
        except BlockingIOError:
            return None
        number, _, code = struct.unpack_from("=Iii", data)  # struct signalfd_siginfo
        return Signal(number, code == FROM_KERNEL)

    def close(self) -> None:
        """No signal is taken any more."""
        os.close(self._fd)
