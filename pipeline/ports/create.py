"""Make the port for a device string."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ringline.shm.errors import ConfigurationError

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.attachment import Attachment, Kind
    from ringline.pipeline.ports.port import Port
    from ringline.shm.packets import PacketMemory


def create_port(config: PortConfig, index: int, below: Path | None = None) -> Port:
    """Make the port for `config.device`; it is not opened yet.

    `index` is the port's number in the instance. `below` is the root for PCI devices (default:
    RINGLINE_SYSFS, else /sys). Raises `ConfigurationError` for an unknown device string or a
    number of queues that the card does not have, `EnvironmentLacks` when there is no such card.
    """
    # Import only the driver of the card that is used.
    from ringline.pipeline.ports.pci import sysfs

    root = below or sysfs.sysfs_root()
    kind, _, address = config.device.partition(":")
    if config.device == "sim:82599":
        from ringline.pipeline.ports.sim82599.port import Sim82599Port

        return Sim82599Port(config, index, root)
    if config.kernel_interface:
        return kind_of(config).create(config, index)
    if kind == "pci" and address:
        from ringline.pipeline.ports.pci import known

        driver = known.driver_of(config, sysfs.PciDevice(address, root))
        module = importlib.import_module(f"ringline.pipeline.ports.{driver}.port")
        return cast("Port", module.create(config, index, root))
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
