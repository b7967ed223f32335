"""Make virtual interfaces, with rtnetlink(7): veth pairs, addresses and netem.

Everything happens in the network namespace of this process. No other program is needed.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from ringline.pipeline.configuration import deadlines

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
_REQUEST, _ACKNOWLEDGE, _EXCLUSIVE, _CREATE = 1, 4, 0x200, 0x400  # NLM_F_*
_ERROR = 2  # NLMSG_ERROR
_NEW_LINK, _NEW_ADDRESS, _NEW_QDISC = 16, 20, 36  # RTM_*
_NAME, _INFO, _NETWORK, _TX_QUEUES, _RX_QUEUES = 3, 18, 28, 31, 32  # IFLA_*
_INFO_KIND, _INFO_DATA, _PEER = 1, 2, 1
_UP = 1  # IFF_UP
_INTERFACE_ADDRESS, _LOCAL_ADDRESS, _ADDRESS_FLAGS = 1, 2, 8  # IFA_*
_NO_DUPLICATE_DETECTION = 2  # IFA_F_NODAD: the address can be used at once
# linux/pkt_sched.h
_KIND, _OPTIONS = 1, 2  # TCA_*
_ROOT = 0xFFFFFFFF  # TC_H_ROOT
_RATE, _RATE64, _LATENCY64 = 6, 8, 10  # TCA_NETEM_*
_ALL = 0xFFFFFFFF  # a probability of 1
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_QUEUE_MIN, _QUEUE_MAX = 1000, 100_000  # packets that netem holds; the first is what tc sets
_PACKETS_A_SECOND = 1e6  # more than a laboratory carries: what a delay holds at this rate fits


@dataclass(frozen=True)
class Impairment:
    """What a wire does to the packets of one direction. loss: a probability; delay: seconds;
    rate: bits a second, 0 for no limit."""

    loss: float = 0.0
    delay: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class End:
    """One end of a veth pair: its name and its queues in each direction."""

    name: str
    queues: int


def make_pair(near: End, far: End, namespace: int) -> None:
    """Make a veth pair, with the end `far` in the network namespace of this descriptor. Raises
    OSError."""
    peer = _LINK.pack(0, 0, 0, 0, 0) + _end(far) + _attribute(_NETWORK, _word(namespace))
    kind = _attribute(_INFO_KIND, b"veth\0") + _attribute(_INFO_DATA, _attribute(_PEER, peer))
    body = _LINK.pack(0, 0, 0, 0, 0) + _end(near) + _attribute(_INFO, kind)
    _order(_NEW_LINK, _CREATE | _EXCLUSIVE, body)


def set_up(name: str) -> None:
    """Set an interface up. Raises OSError."""
    _order(_NEW_LINK, 0, _LINK.pack(0, 0, socket.if_nametoindex(name), _UP, _UP))


def add_address(name: str, address: str) -> None:
    """Give an interface an address such as 192.0.2.1/24. Raises OSError."""
    given = ipaddress.ip_interface(address)
    family = socket.AF_INET if given.version == 4 else socket.AF_INET6
    head = struct.pack(
        "=4BI", family, given.network.prefixlen, 0, 0, socket.if_nametoindex(name)
    )  # struct ifaddrmsg
    body = head + _attribute(_LOCAL_ADDRESS, given.packed)
    body += _attribute(_INTERFACE_ADDRESS, given.packed)
    if given.version == 6:
        body += _attribute(_ADDRESS_FLAGS, _word(_NO_DUPLICATE_DETECTION))
    _order(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, body)


def impair(name: str, wire: Impairment) -> None:
    """Let netem lose, delay and slow down what an interface sends. Raises OSError: ENOENT when
    the kernel has no netem."""
    head = struct.pack("=BxxxiIII", 0, socket.if_nametoindex(name), 0, _ROOT, 0)  # struct tcmsg
    body = head + _attribute(_KIND, b"netem\0") + _attribute(_OPTIONS, netem_options(wire))
    _order(_NEW_QDISC, _CREATE | _EXCLUSIVE, body)


def netem_options(wire: Impairment) -> bytes:
    """TCA_OPTIONS of netem: struct tc_netem_qopt and the attributes behind it."""
    limit = min(max(round(wire.delay * _PACKETS_A_SECOND), _QUEUE_MIN), _QUEUE_MAX)
    options = struct.pack("=6I", 0, limit, round(wire.loss * _ALL), 0, 0, 0)
    options += _attribute(_LATENCY64, struct.pack("=q", round(wire.delay * 1e9)))
    if wire.rate:
        rate = max(round(wire.rate / 8), 1)  # bytes a second
        options += _attribute(_RATE64, struct.pack("=Q", rate))
        options += _attribute(_RATE, struct.pack("=IiIi", min(rate, _ALL), 0, 0, 0))
    return options


def _end(end: End) -> bytes:
    queues = _word(end.queues)
    return (
        _attribute(_NAME, end.name.encode() + b"\0")
        + _attribute(_TX_QUEUES, queues)
        + _attribute(_RX_QUEUES, queues)
    )


def _word(value: int) -> bytes:
    return struct.pack("=I", value)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _order(kind: int, flags: int, body: bytes) -> None:
    """Give the kernel an order and wait until it is done. Raises OSError."""
    flags |= _REQUEST | _ACKNOWLEDGE
    request = _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as to:
        to.settimeout(deadlines.NETLINK)
        to.send(request)
        answer = to.recv(1 << 16)
    _, told, *_ = _HEADER.unpack_from(answer)
    number = -struct.unpack_from("=i", answer, _HEADER.size)[0] if told == _ERROR else errno.EPROTO
    if number:
        raise OSError(number, os.strerror(number))
