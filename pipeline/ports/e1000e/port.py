"""The port of an Intel 82574L: what it adds to the port of a card with descriptor rings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringline.pipeline._pipeline import lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.descriptor_rings.port import RingPort
from ringline.pipeline.ports.e1000e import initialisation
from ringline.pipeline.ports.e1000e.card import Card


def descriptor_flags(vlan_strip: bool) -> list[int]:
    """The packet flags for each combination of bits of a receive descriptor.

    The bits of an index are, from bit 0: IXSM, VP, UDPCS, TCPCS, IPCS, the RSS type in 4 bits,
    TCPE, IPE. IXSM says that the card has checked nothing.
    """
    table = []
    for entry in range(2048):
        ixsm, vp, udpcs, tcpcs, ipcs, tcpe, ipe = (
            entry >> bit & 1 for bit in (0, 1, 2, 3, 4, 9, 10)
        )
        l3 = ipcs and not ixsm
        l4 = (udpcs or tcpcs) and not ixsm
        table.append(
            lib.RL_FLAG_VLAN * bool(vp and vlan_strip)
            | lib.RL_FLAG_HASH * (entry >> 5 & 0xF != 0)
            | lib.RL_FLAG_L3_OK * bool(l3 and not ipe)
            | lib.RL_FLAG_L4_OK * bool(l4 and not tcpe)
            | lib.RL_FLAG_CHECKSUM_BAD * bool((l3 and ipe) or (l4 and tcpe))
        )
    return table


class E1000ePort(RingPort):
    """One 82574L; see `RingPort`."""

    chip, queues_max = "82574L", 2
    card_class = Card
    steps: tuple[Callable[[Any], None], ...] = initialisation.STEPS
    disable_master: Callable[[Any], None] = staticmethod(initialisation.disable_master)
    bursts = ("rl_e1000e_rx_burst", "rl_e1000e_tx_burst", "rl_card_reclaim")
    _descriptor_flags = staticmethod(descriptor_flags)


def create(config: PortConfig, index: int, sysfs: Path) -> E1000ePort:
    """The port for a card on PCI."""
    return E1000ePort(config, index, sysfs)
