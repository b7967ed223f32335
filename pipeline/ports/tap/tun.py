"""The device /dev/net/tun (linux/if_tun.h): descriptors that are queues of a TAP."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from pathlib import Path

DEVICE = Path("/dev/net/tun")
_SET_INTERFACE, _GET_INTERFACE = 0x400454CA, 0x800454D2  # TUNSETIFF, TUNGETIFF
_SET_OFFLOAD = 0x400454D0  # TUNSETOFFLOAD
_TAP, _NO_INFORMATION, _MULTI_QUEUE, _EXCLUSIVE = 0x0002, 0x1000, 0x0100, 0x8000  # IFF_*
_REQUEST = struct.Struct("=16sH22x")  # struct ifreq


def open_queue(name: str, *, multi_queue: bool, make: bool) -> int:
    """A new queue of the TAP `name`, as a descriptor that does not block.

    With `make`, this makes the TAP; it ends with its last descriptor. Raises OSError: EEXIST when
    it is there already.
    """
    fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _TAP | _NO_INFORMATION
        flags |= _MULTI_QUEUE if multi_queue else 0
        flags |= _EXCLUSIVE if make else 0
        try:
            fcntl.ioctl(fd, _SET_INTERFACE, _REQUEST.pack(name.encode(), flags))
        except OSError as error:
            if make and error.errno == errno.EBUSY:
                raise FileExistsError(errno.EEXIST, "it was made by somebody else") from None
            raise
        # The kernel completes checksums and cuts long segments before it passes a frame on.
        fcntl.ioctl(fd, _SET_OFFLOAD, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def name_of(fd: int) -> str:
    """The name of a queue's interface now, wherever that was moved; "" when it was removed."""
    try:
        answer = fcntl.ioctl(fd, _GET_INTERFACE, _REQUEST.pack(b"", 0))
    except OSError:
        return ""
    return answer[:16].split(b"\0")[0].decode("utf-8", "replace")


def state(fd: int) -> tuple[bool, bool]:
    """Whether the interface of a queue is there, and whether it is up.

    This is right for an interface that was renamed or moved to another network namespace, too:
    the kernel lets a program write to a queue only while its interface is up (`tun_chr_poll`).
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    events = dict(poll.poll(0)).get(fd, 0)
    if events & (select.POLLERR | select.POLLNVAL):
        return False, False
    return True, bool(events & select.POLLOUT)
