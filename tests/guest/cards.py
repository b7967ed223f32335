"""The cards that a guest can have, and the other ends of their cables.

A card is named as in "virtio-net", or "virtio-net:4" for four queues. The cable of a card ends in
a socket of this process. A card with one queue has a socket pair, which loses no frame; a card with
several has a TAP interface, since QEMU offers several queues only with that. The interface is in a
network namespace that has no name, and both end with the last descriptor. The cable of a card with
a `host` ends in a TAP interface of that host (hosts.py), and nothing records what it sends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .hosts import CABLE, Host, entered
from .kernel import Missing

BUFFER_BYTES = 1 << 27  # of a socket: frames that wait for the guest or for the recorder
_CLONE_NEWNET = 0x40000000
# linux/if_tun.h, linux/sockios.h, linux/if.h
_TUNSETIFF = 0x400454CA
_TAP, _NO_INFORMATION, _MULTI_QUEUE, _VNET_HEADER = 0x2, 0x1000, 0x100, 0x4000  # IFF_*
_SIOCSIFFLAGS, _SIOCSIFTXQLEN = 0x8914, 0x8943
_UP = 0x1
_QUEUE_FRAMES = 30000  # frames that a TAP interface holds for the guest
_ETH_P_ALL = 3
_ALL = socket.htons(_ETH_P_ALL)
_RECEIVE_BUFFER_FORCE = 33  # SO_RCVBUFFORCE
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_SHORTEST = 60  # bytes of a frame on a wire; virtio-net sends shorter ones
_ROOM = 60.0  # seconds that a frame may wait until there is room for it
_TURN = 0.1  # seconds: how long the recorder may not notice that it is to end


@dataclass(frozen=True)
class Model:
    """A kind of card: QEMU's name of it, the kernel module, options, the most queues, the first
    version of QEMU that has it, and whether it must be behind a port of PCI Express of its own."""

    device: str
    module: str
    options: Mapping[str, str | bool] = field(default_factory=dict)
    queues_most: int = 1
    since: int = 7
    express: bool = False


MODELS = {
    "virtio-net": Model("virtio-net-pci", "virtio_net", {"disable-legacy": "on"}, 8),
    # Linux's driver of virtio-net has zero-copy only when the card maps its memory by the IOMMU's
    # interface, which it does without an IOMMU too.
    "virtio-net-mapped": Model(
        "virtio-net-pci", "virtio_net", {"disable-legacy": "on", "iommu_platform": True}, 8
    ),
    "virtio-net-rss": Model(
        "virtio-net-pci",
        "virtio_net",
        {"disable-legacy": "on", "iommu_platform": True, "rss": True, "hash": True},
        8,
    ),
    "virtio-net-transitional": Model("virtio-net-pci", "virtio_net", {"disable-legacy": "off"}, 8),
    "virtio-net-legacy": Model("virtio-net-pci", "virtio_net", {"disable-modern": True}),
    "e1000e": Model("e1000e", "e1000e"),
    "igb": Model("igb", "igb", since=8, express=True),
}


@dataclass(frozen=True)
class Card:
    """A card of a guest: its model, its queues, whether it is behind a port of PCI Express of its
    own (only such a card can be unplugged), and the host at the other end of its cable."""

    model: Model
    queues: int
    express: bool = False
    host: Host | None = None

    @property
    def modules(self) -> list[str]:
        return [self.model.module]


def card(text: str, host: Host | None = None, *, express: bool = False) -> Card:
    """The card with a name such as "virtio-net:4", with `host` at the other end; with `express`,
    behind a port of its own. Raises ValueError: the text says why."""
    name, _, number = text.partition(":")
    model = MODELS.get(name)
    if model is None:
        raise ValueError(f"there is no card {name!r} for guests; there are {', '.join(MODELS)}")
    queues = int(number) if number.isdecimal() else 0 if number else 1
    if queues != 1 and model.queues_most == 1:
        raise ValueError(f"QEMU decides how many queues {name} has; write {name}, not {text}")
    if not 1 <= queues <= model.queues_most:
        raise ValueError(f"{name} has 1 to {model.queues_most} queues here, not {number}")
    return Card(model, queues, express or model.express, host)


class End:
    """The end of a card's cable on the host: sends frames to the guest through the socket `near`,
    and records what the guest sends."""

    def __init__(self, near: socket.socket) -> None:
        self._frames: list[bytes] = []
        self._changed = threading.Condition()
        self._ending = False
        self._joined: End | None = None
        self._socket = near
        near.settimeout(_ROOM)
        self._receiving = near.dup()
        self._receiving.settimeout(_TURN)
        self._recorder = threading.Thread(target=self._record, daemon=True)
        self._recorder.start()

    def send(self, frame: bytes) -> None:
        """Send a frame to the guest; waits while there is no room. Raises OSError: TimeoutError
        when there is none for a minute, or the guest has ended."""
        self._socket.send(frame)

    def use_headers(self, on: bool) -> None:
        """Frames of a card with several queues, both ways, begin with a struct virtio_net_hdr of 10
        bytes from now on (PACKET_VNET_HDR, packet(7)), or do so no more."""
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, on)

    def join(self, other: End) -> None:
        """What the guest sends on this cable arrives on the other one too, and the other way round,
        from now on."""
        self._joined, other._joined = other, self

    def frames(self) -> list[bytes]:
        """All that the guest has sent until now, in order."""
        with self._changed:
            return list(self._frames)

    def wait_for(
        self, count: int, seconds: float, wanted: Callable[[bytes], bool] = lambda _: True
    ) -> list[bytes]:
        """The frames that the guest sent and that are `wanted`, when there are `count` of them, or
        fewer when none has come for `seconds`."""
        found: list[bytes] = []
        seen = 0
        with self._changed:
            while True:
                found += filter(wanted, self._frames[seen:])
                seen = len(self._frames)
                if len(found) >= count:
                    return found
                if not self._changed.wait(seconds) and len(self._frames) == seen:
                    return found

    def close(self) -> None:
        self._ending = True
        self._recorder.join()
        self._socket.close()

    def _record(self) -> None:
        with self._receiving as receiving:
            while not self._ending:
                try:
                    frame, sender = receiving.recvfrom(1 << 16)
                except TimeoutError:
                    continue
                except OSError:  # the guest has ended
                    return
                if isinstance(sender, tuple) and sender[2] == socket.PACKET_OUTGOING:
                    continue
                with self._changed:
                    self._frames.append(frame)
                    self._changed.notify_all()
                if self._joined is not None:
                    with contextlib.suppress(OSError):  # no room for a minute, or the guest ended
                        self._joined.send(frame.ljust(_SHORTEST, b"\0"))


class Cable(End):
    """The end of the cable of a card that QEMU makes. `arguments` are those of QEMU, `device` those
    of the card alone, and `passed` the descriptors that QEMU gets."""

    def __init__(self, card: Card, number: int) -> None:
        self.passed: list[int] = []
        with contextlib.ExitStack() as stack:
            tap = card.queues > 1 or card.host is not None
            near, network = self._tap(stack, card) if tap else self._pair(stack)
            super().__init__(near)
            stack.pop_all()
        self.device: dict[str, str | bool | int] = {
            "driver": card.model.device,
            "id": f"card{number}",
            "netdev": f"n{number}",
            "mac": f"52:54:00:00:00:{number + 1:02x}",
            **card.model.options,
        }
        if card.queues > 1:
            self.device |= {"mq": True, "vectors": 2 * card.queues + 2}
        place: dict[str, str | bool | int] = {"bus": "pcie.0", "addr": f"{0x10 + number:#x}"}
        self.arguments = ["-netdev", f"{network},id=n{number}"]
        if card.express:
            port = {"driver": "pcie-root-port", "id": f"port{number}", "chassis": number + 1}
            self.arguments += ["-device", json.dumps(port | place)]
            place = {"bus": f"port{number}"}
        self.device |= place
        self.arguments += ["-device", json.dumps(self.device)]

    def started(self) -> None:
        """QEMU has the descriptors now: it alone keeps them."""
        for fd in self.passed:
            os.close(fd)
        self.passed = []

    def close(self) -> None:
        self.started()
        super().close()

    def _pair(self, stack: contextlib.ExitStack) -> tuple[socket.socket, str]:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        stack.enter_context(near)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.passed = [far.detach()]
        return near, f"dgram,local.type=fd,local.str={self.passed[0]}"

    def _tap(self, stack: contextlib.ExitStack, card: Card) -> tuple[socket.socket, str]:
        if os.geteuid() != 0:
            raise Missing("needs root, for a card with several queues")
        with entered(card.host) if card.host else _own_namespace():
            name = CABLE.encode()
            for _ in range(card.queues):
                fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
                self.passed.append(fd)
                flags = _TAP | _NO_INFORMATION | _MULTI_QUEUE | _VNET_HEADER
                fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name, flags))
            # The kernel of the host itself says nothing on the cable unless it is asked to.
            Path(f"/proc/sys/net/ipv6/conf/{CABLE}/disable_ipv6").write_text("1")
            near = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            fcntl.ioctl(near, _SIOCSIFTXQLEN, struct.pack("16si20x", name, _QUEUE_FRAMES))
            fcntl.ioctl(near, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _UP))
        near.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, BUFFER_BYTES)
        near.bind((CABLE, 0 if card.host else _ETH_P_ALL))
        return near, f"tap,vhost=off,fds={':'.join(map(str, self.passed))}"


@contextlib.contextmanager
def _own_namespace() -> Iterator[None]:
    """This thread is in a new network namespace without a name. What is made here stays there, and
    the namespace ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise Missing("needs the right to make network namespaces, for a card with queues")
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0
