"""Whether an interface is one that a port on packet sockets can use. Opens and changes nothing.

Such a port gets a copy of the traffic. So it cuts nothing off, and fits beside all else that uses
the interface: addresses, routes, a bridge, an XDP program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringline.pipeline.configuration.config import FRAME_MAX
from ringline.pipeline.ports.interfaces import capabilities, ethtool, interface
from ringline.shm.errors import EnvironmentLacks

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.interfaces.interface import Interface


def check(config: PortConfig) -> Interface:
    """The interface of the port.

    Raises EnvironmentLacks: there is none, it cannot be used, or this process lacks a right.
    """
    found = interface.present(config.name, config.address)
    where = f"port.{config.name}.device"
    if why := interface.not_ethernet(found):
        raise EnvironmentLacks(f"{where}: {why}")
    if not capabilities.has(capabilities.NET_RAW):
        raise EnvironmentLacks(
            f"{where}: {found.name} cannot be opened: this process lacks CAP_NET_RAW; "
            "run as root, or give it what is missing"
        )
    return found


def long_frames(config: PortConfig, found: Interface) -> list[str]:
    """Sentences about frames of the interface that are longer than a buffer, and what to do."""
    assert config.packet is not None
    name, sentences = found.name, []
    dropped = f"longer than {FRAME_MAX} bytes are dropped as oversize"
    if found.mtu > interface.MTU_MAX:
        sentences.append(
            f"frames {dropped}, and {name} has an MTU of {found.mtu} bytes; to have none, run: "
            f"ip link set dev {name} mtu {interface.MTU_MAX}"
        )
    words = ("gro", "lro", "tso", "gso") if config.packet.outgoing else ("gro", "lro")
    merging = [word for word in words if ethtool.offloads(name, word)]
    if merging or found.virtual:
        here = f"ethtool -K {name} {' '.join(f'{word} off' for word in merging)}"
        there = "ethtool -K NAME tso off gso off where TCP is sent to it"
        commands = [here] * bool(merging) + [there] * found.virtual
        sentences.append(
            f"TCP may come to {name} in frames of up to 64 KiB, and those {dropped}; to have none, "
            f"run: {', and '.join(commands)}"
        )
    return [f"port {config.name}: {sentence}" for sentence in sentences]
