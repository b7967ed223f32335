"""The other end of a served card's wire: a TAP of this machine, a pair of datagram sockets, or
nothing.

    tap:NAME         the interface NAME, which is made unless it is there; root, or its owner
    unix:OWN,PEER    one datagram is one frame. The socket OWN is made, and frames go to PEER, as
                     with QEMU's -netdev dgram. unix:A,B and unix:B,A join two served cards
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from types import TracebackType

from ringline.shm.errors import EnvironmentLacks, UsageError, reason_of
from ringline.shm.owners import is_file_at

FORMS = "tap:NAME or unix:OWN,PEER"
_PATH_BYTES = 107  # of a socket's path (unix(7))
_BUFFER_BYTES = 1 << 22
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TAP, _NO_INFORMATION = 0x2, 0x1000


class Wire:
    """`fd` is open and does not block; `peer` is a struct sockaddr, or empty. A context manager."""

    def __init__(self, fd: int, peer: bytes = b"", path: str = "") -> None:
        self.fd, self.peer = fd, peer
        self._path = path
        self._status = os.lstat(path) if path else None

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)
        with contextlib.suppress(OSError):
            if self._status is not None and is_file_at(self._path, self._status):
                os.unlink(self._path)


def open_wire(text: str) -> Wire:
    """The wire that `text` names. Raises UsageError or EnvironmentLacks."""
    kind, _, rest = text.partition(":")
    if kind == "tap" and rest:
        return _tap(rest)
    own, _, peer = rest.partition(",")
    if kind == "unix" and own and peer and own != peer:
        return _pair(own, peer)
    raise UsageError(f"--wire must be {FORMS}, not {text!r}")


def _tap(name: str) -> Wire:
    if len(name.encode()) > 15 or "/" in name or name in {".", ".."}:
        raise UsageError(f"--wire: {name!r} cannot name an interface; it has 1 to 15 bytes")
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise EnvironmentLacks(f"/dev/net/tun: {reason_of(error)}") from None
    try:
        request = struct.pack("16sH22x", name.encode(), _TAP | _NO_INFORMATION)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EINVAL:
            raise EnvironmentLacks(
                f"--wire: there is an interface {name} that is no TAP, or a TAP of another kind; "
                "choose another name"
            ) from None
        if error.errno == errno.EBUSY:
            raise EnvironmentLacks(
                f"--wire: another program has the TAP {name}; end it, or choose another name"
            ) from None
        raise EnvironmentLacks(
            f"--wire: the TAP {name} cannot be used: {reason_of(error)}; become root, or let root "
            f"make it for you: ip tuntap add {name} mode tap user $USER"
        ) from None
    return Wire(fd)


def _pair(own: str, peer: str) -> Wire:
    for path in (own, peer):
        if len(os.fsencode(path)) > _PATH_BYTES:
            raise UsageError(f"--wire: {path} has more than {_PATH_BYTES} bytes")
    near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(Path(own))
        near.bind(own)
    except OSError as error:
        near.close()
        raise EnvironmentLacks(
            f"--wire: the socket {own} cannot be made: {reason_of(error)}"
        ) from None
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    address = struct.pack("<H", socket.AF_UNIX) + os.fsencode(peer) + b"\0"
    return Wire(near.detach(), address, own)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody has open any more."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError:
            return  # of another kind: bind says so
