"""Whether a name is one that a port on a TAP can use. Opens and changes nothing."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ringline.pipeline.ports.interfaces import capabilities, netlink
from ringline.pipeline.ports.interfaces.interface import MTU_MAX
from ringline.pipeline.ports.tap import tun
from ringline.shm.errors import EnvironmentLacks

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig

# linux/if_link.h: IFLA_TUN_*
_OWNER, _GROUP, _TYPE, _MULTI_QUEUE, _QUEUES, _DISABLED = 1, 2, 3, 7, 8, 9
_TYPE_TAP = 2  # IFF_TAP


@dataclass(frozen=True)
class Found:
    """A TAP that is there already. `owner` and `group` may use it without a right; None: there is
    none. `queues` are open in other programs; 0 also for a TAP for one queue, of which the kernel
    does not tell it."""

    number: int
    mtu: int
    multi_queue: bool
    owner: int | None
    group: int | None
    queues: int


def check(config: PortConfig) -> Found | None:
    """The TAP of the port; None when there is no interface with this name, and one can be made.

    Raises EnvironmentLacks: the interface cannot be used, or this process lacks a right.
    """
    name = config.address
    where = f"port.{config.name}.device"
    _check_device(where)
    link = netlink.link(name=name)
    if link is None:
        if not capabilities.has(capabilities.NET_ADMIN):
            raise EnvironmentLacks(
                f"{where}: {name} cannot be made: this process lacks CAP_NET_ADMIN; run as root, "
                f"or make it for this user: ip tuntap add {name} mode tap{_queue_word(config)} "
                f"user {os.geteuid()}"
            )
        return None
    found = _described(link)
    why = _not_a_tap(name, link) if found is None else _objection(config, name, found)
    if why:
        raise EnvironmentLacks(f"{where}: {why}")
    return found


def _check_device(where: str) -> None:
    if not tun.DEVICE.exists():
        raise EnvironmentLacks(
            f"{where}: there is no {tun.DEVICE}: load the module of the kernel (modprobe tun), or "
            f"give the container this device (--device {tun.DEVICE})"
        )
    if not os.access(tun.DEVICE, os.R_OK | os.W_OK):
        raise EnvironmentLacks(
            f"{where}: this user may not read and write {tun.DEVICE}; run: chmod 666 {tun.DEVICE}"
        )


def _described(link: netlink.Link) -> Found | None:
    """None: it is no TAP."""
    number, _, attributes = link
    info = netlink.attributes(attributes.get(netlink.INFO, b""))
    data = netlink.attributes(info.get(netlink.INFO_DATA, b""))
    if info.get(netlink.INFO_KIND, b"").split(b"\0")[0] != b"tun":
        return None
    if data.get(_TYPE, b"\0")[0] != _TYPE_TAP:
        return None
    return Found(
        number=number,
        mtu=_number(attributes.get(netlink.MTU)) or 0,
        multi_queue=data.get(_MULTI_QUEUE, b"\0")[0] != 0,
        owner=_number(data.get(_OWNER)),
        group=_number(data.get(_GROUP)),
        queues=(_number(data.get(_QUEUES)) or 0) + (_number(data.get(_DISABLED)) or 0),
    )


def _number(data: bytes | None) -> int | None:
    return None if data is None else int(struct.unpack_from("=I", data)[0])


def _not_a_tap(name: str, link: netlink.Link) -> str:
    info = netlink.attributes(link[2].get(netlink.INFO, b""))
    kind = info.get(netlink.INFO_KIND, b"").split(b"\0")[0].decode("ascii", "replace")
    what = {"": "no virtual interface", "tun": "a TUN, which has no Ethernet header"}.get(
        kind, f"of the kind {kind}"
    )
    other = f', or write device = "xdp:{name}"' if kind != "tun" else ""
    return f"{name} is there already, and is no TAP but {what}; choose another name{other}"


def _objection(config: PortConfig, name: str, found: Found) -> str:
    """Why the port cannot use a TAP that is there, and what to do; "" when it can."""
    assert config.tap is not None
    if found.queues:
        return in_use(name)
    if config.queues > 1 and not found.multi_queue:
        return (
            f"{name} has one queue, and {config.queues} are configured; set queues = 1, or make it "
            f"again: ip tuntap del {name} mode tap; ip tuntap add {name} mode tap multi_queue"
        )
    most = max(config.tap.mtu, MTU_MAX)
    if found.mtu > most:
        return (
            f"{name} has an MTU of {found.mtu} bytes, and a packet buffer has room for "
            f"an MTU of at most {most}; run: ip link set dev {name} mtu {most}"
        )
    own = config.tap.settings + (("mac",) if config.mac else ())
    own = tuple(key for key in own if key != "mtu" or config.tap.mtu != found.mtu)
    if own:
        return (
            f"{name} is there already and keeps its settings; remove {', '.join(own)}, or let "
            f"ringline make the interface: ip tuntap del {name} mode tap"
            + (" multi_queue" if found.multi_queue else "")
        )
    if not _permitted(found):
        user = f"user {found.owner}" if found.owner is not None else "root"
        return (
            f"{name} belongs to {user}, and this process lacks CAP_NET_ADMIN; run as that user, or "
            f"make it again for this one: ip tuntap add {name} mode tap{_queue_word(config)} "
            f"user {os.geteuid()}"
        )
    return ""


def in_use(name: str) -> str:
    """The objection to a TAP that is open elsewhere. The kernel tells this of a TAP for several
    queues only; one for a single queue is known to be in use when it cannot be opened."""
    return f"{name} is in use by another program; end it, or choose another name"


def _permitted(found: Found) -> bool:
    """Whether this process may open a queue (`tun_not_capable` in drivers/net/tun.c)."""
    if capabilities.has(capabilities.NET_ADMIN):
        return True
    groups = {os.getegid(), *os.getgroups()}
    return found.owner in (None, os.geteuid()) and (found.group is None or found.group in groups)


def _queue_word(config: PortConfig) -> str:
    return " multi_queue" if config.queues > 1 else ""
