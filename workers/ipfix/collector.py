"""Where messages of IPFIX go: a collector at a UDP port (RFC 7011, section 10.3), or a file (RFC
5655)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ringline.shm.errors import PluginError
from ringline.shm.text import printable

PORT = 4739  # IANA's port of IPFIX


@dataclass(frozen=True)
class Target:
    """A collector at `host` and `port`, or a file at `path`."""

    url: str
    host: str = ""
    port: int = PORT
    path: str = ""

    def resolved(self) -> Target:
        """The same with an address in place of a name. Raises PluginError when it has none."""
        if self.path:
            return self
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise _bad(self.url, f"{self.host} has no address: {error.strerror}") from None
        return Target(self.url, str(found[0][4][0]), self.port)

    def connect(self, *, replace: bool = False) -> Link:
        """A way to it. A file that is there is replaced, or continued. Raises OSError."""
        if self.path:
            how = os.O_TRUNC if replace else 0
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | how
            return _File(os.open(self.path, flags, 0o666))
        numeric = socket.AI_NUMERICHOST
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_DGRAM, flags=numeric
        )[0]
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            made.connect(address)
        except OSError:
            made.close()
            raise
        return _Socket(made)


class Link:
    """A way to a collector."""

    def send(self, message: bytes) -> None:
        """Send a message. Raises OSError; ECONNREFUSED is said of an earlier message."""
        raise NotImplementedError

    def refused(self) -> bool:
        """Whether the collector's machine said of a message that nobody took it."""
        return False

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError


class _Socket(Link):
    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    def send(self, message: bytes) -> None:
        self._socket.send(message)

    def refused(self) -> bool:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    def close(self) -> None:
        self._socket.close()


class _File(Link):
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, message: bytes) -> None:
        """Write a message, whole or not at all. Workers write to one file: O_APPEND keeps their
        messages apart."""
        written = os.write(self._fd, message)
        if written < len(message):
            with contextlib.suppress(OSError):  # not a regular file
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._fd)


def target_of(url: str) -> Target:
    """What the option `export` names. Raises PluginError when it is nothing of this kind."""
    if not url.isprintable() or len(url) > 2000:
        raise _bad(url[:100], "it is too long, or has a character that cannot be printed")
    if url.startswith("file://"):
        path = os.path.abspath(os.path.expanduser(url[len("file://") :]))
        if url.endswith("/") or os.path.isdir(path):
            raise _bad(url, "this is a folder; name a file in it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise _bad(url, "this is not a regular file")
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise _bad(url, f"there is no folder {folder}")
        if not os.access(path if os.path.exists(path) else folder, os.W_OK):
            raise _bad(url, "it cannot be written: Permission denied")
        return Target(url, path=path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad(url, str(error)) from None
    if parts.scheme != "udp":
        raise _bad(url, "it begins with neither udp:// nor file://")
    if port == 0:
        raise _bad(url, "a port is 1 to 65535")
    host = _host_of(parts)
    if not host or (parts.path not in ("", "/")) or parts.query or parts.fragment or parts.username:
        raise _bad(url, "there is a host and a port in it, and nothing else")
    return Target(url, host, port or PORT)


def _host_of(parts: SplitResult) -> str:
    return (parts.hostname or "").replace("%25", "%")  # the zone of a link-local address


def _bad(url: str, why: str) -> PluginError:
    return PluginError(
        f'the option export must be such as "udp://collector:4739", "udp://[2001:db8::1]" or '
        f'"file:///var/flows.ipfix", not {printable(url)!r}: {printable(why)}'
    )
