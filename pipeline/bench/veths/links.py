"""Two network namespaces for `bench xdp`, joined by two veth pairs.

    the far one: source -> ea ~~ va -- the middle one: what is measured -- vb ~~ eb -> nobody

They have no names: only this process and its children hold them. So nothing of them is left when
these have ended, also by SIGKILL, and nothing here touches the network of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks

INPUT, OUTPUT = "va", "vb"  # interfaces in the middle
FROM, TO = "ea", "eb"  # their peers in the far namespace
_NEWNET = 0x40000000  # CLONE_NEWNET of linux/sched.h
_ETHTOOL, _SET_GRO = 0x8946, 0x2C  # SIOCETHTOOL, ETHTOOL_SGRO of linux/ethtool.h
_libc = ctypes.CDLL(None, use_errno=True)


class Links:
    """The two namespaces; `middle` and `far` are descriptors of them."""

    def __init__(self, middle: int, far: int) -> None:
        self.middle, self.far = middle, far

    def sent(self) -> int:
        """Packets that came out of the middle so far. Call it in the far namespace."""
        return self._counter(TO, 1)

    def offered(self) -> int:
        """Packets that the source has sent into the middle so far."""
        return self._counter(FROM, 9)

    @staticmethod
    def _counter(interface: str, field: int) -> int:
        for line in Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == interface:
                return int(counters.split()[field])
        raise EnvironmentLacks(f"bench xdp: interface {interface} was removed")


@contextlib.contextmanager
def within(namespace: int) -> Iterator[None]:
    """This thread, and the processes that it starts, are in the namespace."""
    with open("/proc/thread-self/ns/net", encoding="ascii") as before:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(before.fileno())


@contextlib.contextmanager
def links() -> Iterator[Links]:
    """Make both namespaces and the veth pairs.

    Raises EnvironmentLacks when this process may not do that, or the command ip is missing.
    """
    if os.geteuid() != 0:
        raise EnvironmentLacks("bench xdp: root is needed, to make network namespaces")
    if shutil.which("ip") is None:
        raise EnvironmentLacks("bench xdp: the command ip is missing; install iproute2")
    with contextlib.ExitStack() as stack:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, home)
        stack.callback(_enter, home)
        far, middle = _make(stack), _make(stack)  # this thread is now in the middle
        for near, peer in ((INPUT, FROM), (OUTPUT, TO)):
            _ip("link", "add", near, "type", "veth", "peer", "name", peer, namespace=far)
            _receive_by_polling(near)
            _ip("link", "set", near, "up")
            with within(far):
                _ip("link", "set", peer, "up")
        _enter(home)
        yield Links(middle, far)


def _make(stack: contextlib.ExitStack) -> int:
    """A new namespace, which this thread enters; its descriptor. It says nothing by itself."""
    if _libc.unshare(_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        raise EnvironmentLacks(f"bench xdp: a network namespace cannot be made: {why}")
    quiet = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    if quiet.exists():
        quiet.write_text("1", encoding="ascii")
    made = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    stack.callback(os.close, made)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _NEWNET) != 0:
        raise EnvironmentLacks(
            f"bench xdp: a network namespace cannot be entered: {os.strerror(ctypes.get_errno())}"
        )


def _ip(*arguments: str, namespace: int | None = None) -> None:
    ip(*arguments, *(("netns", f"/proc/self/fd/{namespace}") if namespace else ()), keep=namespace)


def ip(*arguments: str, keep: int | None = None) -> None:
    """Run the command ip in the namespace of this thread. Raises EnvironmentLacks."""
    done = subprocess.run(
        ["ip", *arguments],
        capture_output=True,
        text=True,
        timeout=deadlines.BENCH_COMMAND,
        check=False,
        pass_fds=[] if keep is None else [keep],
    )
    if done.returncode != 0:
        raise EnvironmentLacks(f"bench xdp: ip {' '.join(arguments)}: {done.stderr.strip()}")


def _receive_by_polling(name: str) -> None:
    """Generic receive offload: with it a veth receives by polling also without an XDP program.
    Otherwise it takes no frame that its peer sends without a buffer of the kernel's own."""
    value = ctypes.create_string_buffer(struct.pack("=II", _SET_GRO, 1))
    request = struct.pack("=16sQ8x", name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _ETHTOOL, request)
