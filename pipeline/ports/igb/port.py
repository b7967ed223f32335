"""The port of an Intel 82576: that of the 82574L, with another card, and with its own descriptors
to send.

A receive descriptor has the same fields in the same places, as far as the burst reads them: bit 2
of its status, IXSM of the 82574L, is reserved and 0 here.
"""

from __future__ import annotations

from pathlib import Path

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.e1000e.port import E1000ePort
from ringline.pipeline.ports.igb import initialisation
from ringline.pipeline.ports.igb.card import Card


class IgbPort(E1000ePort):
    """One port of an 82576; see `E1000ePort`."""

    chip, queues_max = "82576", 16
    card_class = Card
    steps = initialisation.STEPS
    disable_master = staticmethod(initialisation.disable_master)
    bursts = ("rl_e1000e_rx_burst", "rl_igb_tx_burst", "rl_card_reclaim")


def create(config: PortConfig, index: int, sysfs: Path) -> IgbPort:
    """The port for a card on PCI."""
    return IgbPort(config, index, sysfs)
