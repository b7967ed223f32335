"""Ask the kernel about a network interface, with rtnetlink(7), or change one.

All is about the network namespace of this process. To ask needs no privilege.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator

from ringline.pipeline.configuration import deadlines

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
_REQUEST = 1  # NLM_F_REQUEST
_DUMP = 0x300  # NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_ACKNOWLEDGED, _CREATE = 4, 0x600  # NLM_F_ACK; NLM_F_CREATE | NLM_F_EXCL
_NEWLINK, _GETLINK, _SETLINK = 16, 18, 19
_NEWADDR, _GETADDR = 20, 22
_LINK_GROUP = 1  # RTMGRP_LINK
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=4BI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
ADDRESS, NAME, MTU, LINK, MASTER, QUEUE_LENGTH, OPERSTATE, INFO = 1, 3, 4, 5, 10, 13, 16, 18
STATS64, TX_QUEUES, RX_QUEUES, CARRIER, XDP = 23, 31, 32, 33, 43
INFO_KIND, INFO_DATA = 1, 2
INTERFACE_ADDRESS, LOCAL_ADDRESS = 1, 2  # IFA_*
XDP_ATTACHED, XDP_PROGRAM = 2, 4
# linux/genetlink.h and linux/netdev.h
_GENERIC_NETLINK, _GENERIC_CONTROL = 16, 16  # NETLINK_GENERIC, GENL_ID_CTRL
_GENERIC = struct.Struct("=BBxx")  # struct genlmsghdr
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2  # CTRL_*
_DEVICE_GET, _DEVICE_NUMBER, _DEVICE_XDP_FEATURES = 1, 1, 3  # NETDEV_*
XDP_REDIRECT, XDP_ZERO_COPY = 2, 8  # NETDEV_XDP_ACT_*

Attributes = dict[int, bytes]
Link = tuple[int, int, Attributes]  # number of the interface, its flags, its attributes


def attributes(data: bytes) -> Attributes:
    """The attributes in `data`, by type."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def link(*, number: int = 0, name: str = "") -> Link | None:
    """The interface with this number or, if that is 0, this name; None when there is none."""
    wanted = b""
    if not number:
        wanted = _attribute(NAME, name.encode() + b"\0")
    return next(_ask(_REQUEST, number, wanted), None)


def links() -> list[Link]:
    """All interfaces of this network namespace."""
    return list(_ask(_REQUEST | _DUMP, 0, b""))


def addresses(number: int) -> set[str]:
    """The IPv4 and IPv6 addresses of the interface with this number."""
    found = set()
    body = _ADDRESS.pack(0, 0, 0, 0, 0)
    for answer in _answers(_GETADDR, _REQUEST | _DUMP, body, _NEWADDR):
        family, _, _, _, index = _ADDRESS.unpack_from(answer)
        data = attributes(answer[_ADDRESS.size :])
        packed = data.get(LOCAL_ADDRESS) or data.get(INTERFACE_ADDRESS)
        if index == number and packed and family in (socket.AF_INET, socket.AF_INET6):
            found.add(socket.inet_ntop(family, packed))
    return found


def set_link(number: int, changes: Attributes, *, up: bool = False) -> None:
    """Change attributes of the interface with this number, and bring it up with `up`.

    Raises OSError: that is not permitted, or not possible.
    """
    body = _LINK.pack(0, 0, number, int(up), int(up))  # IFF_UP, and which flags change
    body += b"".join(_attribute(kind, data) for kind, data in changes.items())
    _order(_SETLINK, body)


def add_address(number: int, address: str) -> None:
    """Give the interface an address such as 192.0.2.1/24. Raises OSError."""
    parsed = ipaddress.ip_interface(address)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    body = _ADDRESS.pack(family, parsed.network.prefixlen, 0, 0, number)
    body += _attribute(INTERFACE_ADDRESS, parsed.packed) + _attribute(LOCAL_ADDRESS, parsed.packed)
    _order(_NEWADDR, body, _CREATE)


class LinkNews:
    """Tells that some interface of this network namespace has changed: a descriptor that is
    readable then. To be told needs no privilege."""

    def __init__(self) -> None:
        """Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _LINK_GROUP))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def take(self) -> None:
        """Forget all news that are there. Some may be lost when there are many (ENOBUFS): then
        others are there."""
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """No more news."""
        self._socket.close()


def _order(what: int, body: bytes, flags: int = 0) -> None:
    """Make the kernel do something. Raises OSError when it refuses."""
    flags |= _REQUEST | _ACKNOWLEDGED
    answer = next(_answers(what, flags, body, _ERROR), b"")
    number = -struct.unpack_from("=i", answer)[0] if len(answer) >= 4 else errno.ENOMSG
    if number:
        raise OSError(number, os.strerror(number))


def xdp_features(number: int) -> int | None:
    """NETDEV_XDP_ACT_* of the interface: what its driver does with XDP (linux/netdev.h).

    None when the kernel does not say so: Linux before 6.3.
    """
    name = b"netdev\0"
    body = _GENERIC.pack(_GET_FAMILY, 1) + _attribute(_FAMILY_NAME, name)
    for answer in _answers(_GENERIC_CONTROL, _REQUEST, body, _GENERIC_CONTROL, _GENERIC_NETLINK):
        family = attributes(answer[_GENERIC.size :]).get(_FAMILY_ID, b"")
        if len(family) < 2:
            return None
        kind = int.from_bytes(family[:2], sys.byteorder)
        body = _GENERIC.pack(_DEVICE_GET, 1) + _attribute(_DEVICE_NUMBER, struct.pack("=I", number))
        for device in _answers(kind, _REQUEST, body, kind, _GENERIC_NETLINK):
            features = attributes(device[_GENERIC.size :]).get(_DEVICE_XDP_FEATURES)
            return None if features is None else int.from_bytes(features, sys.byteorder)
    return None


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _ask(flags: int, number: int, wanted: bytes) -> Iterator[Link]:
    body = _LINK.pack(0, 0, number, 0, 0) + wanted + b"\0" * (-len(wanted) % 4)
    for answer in _answers(_GETLINK, flags, body, _NEWLINK):
        _, _, index, state, _ = _LINK.unpack_from(answer)
        yield index, state, attributes(answer[_LINK.size :])


def _answers(
    question: int, flags: int, body: bytes, wanted: int, family: int = 0
) -> Iterator[bytes]:
    """The bodies of the messages of the kind `wanted` that answer a question to the `family`, which
    is a protocol of AF_NETLINK."""
    request = _HEADER.pack(_HEADER.size + len(body), question, flags, 1, 0) + body
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, family) as asked:
        asked.settimeout(deadlines.NETLINK)
        asked.send(request)
        while True:
            answer = asked.recv(1 << 18)
            at = 0
            while at + _HEADER.size <= len(answer):
                length, told, *_ = _HEADER.unpack_from(answer, at)
                if told == wanted:
                    yield answer[at + _HEADER.size : at + length]
                if told in (_ERROR, _DONE):
                    return
                at += (length + 3) & ~3
            if flags & _DUMP != _DUMP:
                return
