"""A network interface of the kernel: find it by its name, describe it, check it for a port.

Every port that uses such an interface resolves its name here, so that the same interface has
the same description and the same mistakes have the same sentences.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.config import FRAME_MAX
from ringline.pipeline.ports.interfaces import ethtool, netlink
from ringline.shm.errors import EnvironmentLacks

ETHERNET_BYTES = 14
TAG_BYTES = 4
MTU_MAX = FRAME_MAX - ETHERNET_BYTES - TAG_BYTES  # bytes: a tagged frame fits into a buffer
NETWORK_NAMESPACES = Path("/run/netns")

_UP, _LOOPBACK, _RUNNING = 0x1, 0x8, 0x40  # IFF_*
_VIRTUAL = ("veth", "tun", "bridge", "dummy", "macvlan", "ipvlan")
_ON_TOP = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec")
_XDP_MODES = {1: "native", 2: "generic", 3: "offloaded", 4: "several"}


@dataclass(frozen=True)
class Interface:
    """What the kernel says of an interface now.

    `kind` is that of a virtual interface, such as veth, else "". `driver` is the kernel driver,
    "" if unknown. `above` is the kind of the interface that this one belongs to (bond, bridge),
    else "". `program` is the number of an XDP program that is attached, else 0, and
    `program_mode` is native, generic or offloaded. `queues` are its RX queues.
    """

    name: str
    number: int
    up: bool
    running: bool
    loopback: bool
    mac: str
    mtu: int
    kind: str
    driver: str
    above: str
    queues: int
    channels: ethtool.Channels | None
    program: int
    program_mode: str

    @property
    def virtual(self) -> bool:
        """Whether packets of this machine reach it without a wire."""
        return self.kind in _VIRTUAL or self.driver in _VIRTUAL


def find(name: str) -> Interface | None:
    """The interface `name` of this network namespace, or None."""
    found = netlink.link(name=name)
    return None if found is None else _described(found)


def all_of_them() -> list[Interface]:
    """The interfaces of this network namespace, by number."""
    return [_described(link) for link in sorted(netlink.links())]


def _described(link: netlink.Link) -> Interface:
    number, flags, attributes = link
    name = name_of(link)
    channels = ethtool.channels(name)
    xdp = netlink.attributes(attributes.get(netlink.XDP, b""))
    mode = xdp.get(netlink.XDP_ATTACHED, b"\0")[0]
    queues = channels.receiving if channels else 0
    return Interface(
        name=name,
        number=number,
        up=bool(flags & _UP),
        running=bool(flags & _RUNNING),
        loopback=bool(flags & _LOOPBACK),
        mac=attributes.get(netlink.ADDRESS, b"").hex(":"),
        mtu=_number(attributes.get(netlink.MTU)),
        kind=_kind(attributes),
        driver=ethtool.driver(name),
        above=_kind_of(_number(attributes.get(netlink.MASTER))),
        queues=queues or _number(attributes.get(netlink.RX_QUEUES)) or 1,
        channels=channels,
        program=_number(xdp.get(netlink.XDP_PROGRAM)) or (1 if mode else 0),
        program_mode=_XDP_MODES.get(mode, ""),
    )


def state(number: int) -> tuple[bool, bool]:
    """Whether the interface with this number is there, and whether it can send and receive."""
    found = netlink.link(number=number)
    if found is None:
        return False, False
    return True, found[1] & (_UP | _RUNNING) == _UP | _RUNNING


def without_link(found: Interface) -> list[str]:
    """A sentence when no frames can come to the interface now, and what to do."""
    if not found.up:
        return [
            f"{found.name} is down: no frame comes or is sent until you run: "
            f"ip link set dev {found.name} up"
        ]
    if not found.running:
        return [
            f"{found.name} has no link: no frame comes or is sent until its other end is connected "
            "and up"
        ]
    return []


def mtu(number: int) -> int:
    """The MTU in bytes of the interface with this number; 0 when there is none."""
    found = netlink.link(number=number)
    return 0 if found is None else _number(found[2].get(netlink.MTU))


def speed(number: int) -> int:
    """Speed in Mbit/s of the link of the interface with this number; 0 when it is not known."""
    found = netlink.link(number=number)
    return 0 if found is None else ethtool.speed(name_of(found))


def present(port: str, name: str) -> Interface:
    """The interface `name` for the port `port`. Raises EnvironmentLacks when there is none."""
    found = find(name)
    if found is None:
        raise EnvironmentLacks(
            f"port.{port}.device: there is no network interface {name} here{_elsewhere()}"
        )
    return found


def resolve(port: str, name: str) -> Interface:
    """The interface `name` for the port `port`, checked for what a port that takes its traffic
    needs.

    Raises EnvironmentLacks: there is no such interface, or no such port can use it.
    """
    found = present(port, name)
    if why := objection(found):
        raise EnvironmentLacks(f"port.{port}.device: {why}")
    return found


def not_ethernet(found: Interface) -> str:
    """Why an interface has no Ethernet frames; "" when it has."""
    if len(found.mac) == len("00:00:00:00:00:00"):
        return ""
    return f"{found.name} carries no Ethernet frames (it has no MAC address of 6 bytes)"


def objection(found: Interface) -> str:
    """Why no port can take this interface's traffic, and what to do; "" when one can."""
    name = found.name
    if found.loopback:
        return (
            f"{name} is the loopback interface, which has no Ethernet frames of its own; "
            "use a veth pair"
        )
    if why := not_ethernet(found):
        return why
    if found.mtu > MTU_MAX:
        return (
            f"{name} has an MTU of {found.mtu} bytes, and a packet buffer has room for "
            f"an MTU of at most {MTU_MAX}; run: ip link set dev {name} mtu {MTU_MAX}"
        )
    if found.above in ("bond", "bridge", "team"):
        return (
            f"{name} belongs to a {found.above}, which would get no more frames from it; "
            f"take it out (ip link set dev {name} nomaster), or name an interface that stands alone"
        )
    if found.kind == "vlan":
        return (
            f"{name} is a VLAN of another interface; name that interface, whose frames have the tag"
        )
    return ""


def occupied(found: Interface) -> str:
    """Why a program of ours cannot be attached, and what to do; "" when it can."""
    if not found.program:
        return ""
    return (
        f"{found.name} has an XDP program already (number {found.program}, {found.program_mode}); "
        f"end the program that attached it, or run: ip link set dev {found.name} xdp off"
    )


def _elsewhere() -> str:
    """A hint for an interface that may be in another network namespace."""
    try:
        names = sorted(path.name for path in NETWORK_NAMESPACES.iterdir())
    except OSError:
        names = []
    if not names:
        return " (ip link shows all)"
    return (
        f" (ip link shows all); if it is in another network namespace ({', '.join(names[:4])}"
        f"{', ...' if len(names) > 4 else ''}), run ringline there: ip netns exec NAME ringline"
    )


def _number(data: bytes | None) -> int:
    return 0 if data is None or len(data) < 4 else int(struct.unpack_from("=I", data)[0])


def _kind(attributes: netlink.Attributes) -> str:
    info = netlink.attributes(attributes.get(netlink.INFO, b""))
    return info.get(netlink.INFO_KIND, b"").split(b"\0")[0].decode("ascii", "replace")


def _kind_of(number: int) -> str:
    found = netlink.link(number=number) if number else None
    return "" if found is None else _kind(found[2])


def promiscuous(found: Interface) -> socket.socket:
    """A socket that keeps the interface promiscuous until it is closed (packet(7)).

    Raises OSError when that is not permitted.
    """
    member = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        # SOL_PACKET 263, PACKET_ADD_MEMBERSHIP 1, PACKET_MR_PROMISC 1: struct packet_mreq.
        member.setsockopt(263, 1, struct.pack("=iHH8s", found.number, 1, 0, b""))
    except OSError:
        member.close()
        raise
    return member


def on_top(found: Interface) -> list[tuple[str, int]]:
    """Names and numbers of the interfaces of this network namespace that receive through this one,
    VLANs for example."""
    return [
        (name_of(link), link[0])
        for link in netlink.links()
        if _number(link[2].get(netlink.LINK)) == found.number and _kind(link[2]) in _ON_TOP
    ]


def restore_channels(number: int, channels: ethtool.Channels) -> bool:
    """Set the channels of the interface with this number. Returns whether that was done.

    The kernel refuses this with EINVAL until it has released the sockets of a queue that ends; they
    are closed a little before that.
    """
    deadline = time.monotonic() + deadlines.RELEASED
    while (found := netlink.link(number=number)) is not None:
        try:
            ethtool.set_channels(name_of(found), channels)
        except OSError as error:
            if error.errno != errno.EINVAL or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
            continue
        return True
    return False


def name_of(link: netlink.Link) -> str:
    """The name of an interface now."""
    return link[2].get(netlink.NAME, b"").split(b"\0")[0].decode("utf-8", "replace")
