"""Make the port for a device string."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ringline.shm.errors import ConfigurationError, EnvironmentLacks

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.attachment import Attachment, Kind
    from ringline.pipeline.ports.port import Port
    from ringline.shm.packets import PacketMemory

# Vendor and device IDs that the ixgbe driver supports: 82599 with an SFI interface.
IXGBE = {(0x8086, 0x10FB), (0x8086, 0x154D), (0x8086, 0x1557)}


def create_port(config: PortConfig, index: int, sysfs: Path | None = None) -> Port:
    """Make the port for `config.device`; it is not opened yet.

    `index` is the port's number in the instance. `sysfs` is the root for PCI devices (default:
    RINGLINE_SYSFS, else /sys). Raises `ConfigurationError` for an unknown device string or a
    number of queues that the card does not have, `EnvironmentLacks` when there is no such card.
    """
    # Import only the driver of the card that is used.
    from ringline.pipeline.ports import pci

    root = sysfs or pci.sysfs_root()
    kind, _, address = config.device.partition(":")
    if config.device == "sim:82599":
        from ringline.pipeline.ports.sim82599.port import Sim82599Port

        return Sim82599Port(config, index, root)
    if config.kernel_interface:
        return kind_of(config).create(config, index)
    if kind == "pci" and address:
        vendor, device = pci.PciDevice(address, root).identity
        if (vendor, device) in IXGBE:
            from ringline.pipeline.ports.ixgbe.port import IxgbePort

            return IxgbePort(config, index, root)
        raise EnvironmentLacks(
            f"port.{config.name}: PCI device {address} is {vendor:04x}:{device:04x}, for which "
            "there is no driver here; there is one for "
            + ", ".join(f"{v:04x}:{d:04x}" for v, d in sorted(IXGBE))
        )
    raise ConfigurationError(
        f"port.{config.name}.device: {config.device!r} is not a device; write sim:82599, a "
        "card's PCI address as in pci:0000:03:00.0, or a network interface as in xdp:eth0"
    )


def kind_of(config: PortConfig) -> Kind:
    """The kind of a port on an interface of the kernel. Only its own module is imported."""
    folder = config.device.partition(":")[0]
    return cast("Kind", importlib.import_module(f"ringline.pipeline.ports.{folder}.kind"))


def attach_port(config: PortConfig, packets: PacketMemory) -> Attachment | None:
    """What the supervisor opens for the port, so that the driver needs no right; None for a card.

    Raises `EnvironmentLacks`, and then nothing is open.
    """
    return kind_of(config).attach(config, packets) if config.kernel_interface else None
