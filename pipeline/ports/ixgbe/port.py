"""The port of an Intel 82599: what it adds to the port of a card with descriptor rings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.descriptor_rings.port import RingPort
from ringline.pipeline.ports.ixgbe import initialisation
from ringline.pipeline.ports.ixgbe.card import Card
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.frames import MTU_MAX

if TYPE_CHECKING:
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses

QUEUES_MAX = 16  # that RSS can address; the 82599 has 128 of each kind


def descriptor_flags(vlan_strip: bool) -> list[int]:
    """The packet flags for each combination of bits of a receive descriptor.

    The bits of an index are, from bit 0: VP, UDPCS, L4I, IPCS, the RSS type in 4 bits, L4E, IPE,
    is UDP. The card sets VP for every tagged frame, but vlan_tci holds the tag only when tags are
    stripped. L4E is ignored for UDP: the chip may set it for a packet without a checksum
    (erratum).
    """
    table = []
    for entry in range(2048):
        vp, l4i, ipcs, l4e, ipe, udp = (entry >> bit & 1 for bit in (0, 2, 3, 8, 9, 10))
        table.append(
            lib.RL_FLAG_VLAN * (vp and vlan_strip)
            | lib.RL_FLAG_HASH * (entry >> 4 & 0xF != 0)
            | lib.RL_FLAG_L3_OK * (ipcs and not ipe)
            | lib.RL_FLAG_L4_OK * (l4i and not l4e)
            | lib.RL_FLAG_CHECKSUM_BAD * ((ipcs and ipe) or (l4i and l4e and not udp))
        )
    return table


class IxgbePort(RingPort):
    """One 82599; see `RingPort`."""

    chip, queues_max, mtu_max = "82599", QUEUES_MAX, MTU_MAX
    card_class = Card
    _card: Card
    checksums = True
    steps = initialisation.STEPS
    disable_master = staticmethod(initialisation.disable_master)
    bursts = ("rl_ixgbe_rx_burst", "rl_ixgbe_tx_burst", "rl_card_reclaim")
    _descriptor_flags = staticmethod(descriptor_flags)

    device_id = 0

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        super().open(memory, descriptors, addresses)
        self._card.device_id = self.device_id


def create(config: PortConfig, index: int, sysfs: Path) -> IxgbePort:
    """The port for a card on PCI."""
    port = IxgbePort(config, index, sysfs)
    device = PciDevice(config.device.removeprefix("pci:"), sysfs)
    port.device_id = device.identity[1]
    return port
