"""Whether an interface is one that a port on AF_XDP can use. Opens and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ringline.pipeline.ports.interfaces import guard, interface, neighbours
from ringline.pipeline.ports.interfaces.ethtool import Channels
from ringline.pipeline.ports.xdp import rights
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.text import counted

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.interfaces.interface import Interface


SYSFS = Path("/sys/class/net")
_ACCESS_PLATFORM = 33  # a bit of the features of a virtio device


def check(config: PortConfig, packet_bytes: int) -> Interface:
    """The interface of the port. `packet_bytes` is the size of packet memory.

    Raises EnvironmentLacks: the interface cannot be used, or this process lacks a right.
    """
    name = config.address
    found = interface.resolve(config.name, name)
    where = f"port.{config.name}.device"
    why = interface.occupied(found)
    if config.xdp is not None and not config.xdp.force:
        why = why or guard.cut_off(found, config.xdp.take)
    if config.xdp is not None and config.xdp.attach == "native":
        why = why or _not_native(found)
    if why:
        raise EnvironmentLacks(f"{where}: {why}")
    lacking = rights.missing(packet_bytes)
    if lacking:
        raise EnvironmentLacks(
            f"{where}: {name} cannot be opened: this process lacks {' and '.join(lacking)}; "
            "run as root, or give it what is missing"
        )
    if found.queues != config.queues:
        _check_channels(config, found)
    return found


def _not_native(found: Interface) -> str:
    """Why native XDP gets no frame of the interface, and what to do; "" when it does."""
    if not neighbours.needs_generic(found):
        return ""
    return (
        f'{found.name} is a bond, from which native XDP gets no frames; set attach = "generic", '
        "or take a member out of the bond and name it"
    )


def wanted_channels(found: Interface, config: PortConfig) -> Channels | None:
    """The channels with which the interface has as many RX queues as the port; None when the
    driver cannot change them."""
    now, queues = found.channels, config.queues
    if now is None:
        return None
    if now.most_combined:
        return Channels(0, 0, 0, 0, 0, queues, now.other)
    return Channels(0, 0, 0, queues, queues, 0, now.other)


def no_zero_copy(found: Interface) -> str:
    """Why a driver refuses zero-copy, where the kernel gives no reason; "" when that is not known.
    Linux's virtio_net needs a device that uses the addresses of the IOMMU: feature 33 of the device
    (VIRTIO_F_ACCESS_PLATFORM, virtio 1.2, section 6)."""
    if found.driver != "virtio_net":
        return ""
    try:
        features = (SYSFS / found.name / "device" / "features").read_text(encoding="ascii")
    except OSError:
        return ""
    if features[_ACCESS_PLATFORM : _ACCESS_PLATFORM + 1] != "0":
        return ""
    return (
        "its device does not use the addresses of an IOMMU (VIRTIO_F_ACCESS_PLATFORM), and "
        "virtio_net needs that; in QEMU iommu_platform=on does it"
    )


def _check_channels(config: PortConfig, found: Interface) -> None:
    """The port has as many queues as the interface: frames of another queue would go to the
    kernel."""
    wanted, now = config.queues, found.channels
    path, has = f"port.{config.name}.queues", counted(found.queues, "queue")
    if now is None:
        raise EnvironmentLacks(
            f"{path}: the driver of {found.name} cannot change its {has}, and the port "
            f"has {wanted}; set queues = {found.queues}"
        )
    most = now.most_combined or min(now.most_rx, now.most_tx)
    words = "combined {0}" if now.most_combined else "rx {0} tx {0}"
    if wanted > most:
        raise EnvironmentLacks(
            f"{path}: {found.name} receives on {has}, and the port has {wanted}; "
            f"set queues = {found.queues}: it has at most {most}"
        )
    if config.xdp is not None and config.xdp.channels != "set":
        raise EnvironmentLacks(
            f"{path}: {found.name} receives on {has}, and the port has {wanted}; "
            f'set queues = {found.queues}, or channels = "set", or run: '
            f"ethtool -L {found.name} {words.format(wanted)}"
        )
