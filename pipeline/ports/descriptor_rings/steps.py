"""Steps of the initialisation that are the same for every family, by the same registers.

Each family says in its own `STEPS` when it takes them, with the section of its datasheet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.descriptor_rings.card import RingCard, as_number
from ringline.pipeline.ports.rss import rss_key
from ringline.shm.errors import HardwareError

RESET_SECONDS = 0.01  # the card is left alone so long after a reset


def finish_dma(card: Any, reset: Callable[[Any], None]) -> None:
    """CTRL, STATUS: let a card that was left running finish its DMA, and reset it if it does not.
    A start then resets it a second time."""
    card.CTRL.set("MASTER_DISABLE")
    try:
        card.STATUS.wait("MASTER_ENABLED", 0, min(deadlines.MASTER_DISABLE, card.wait_seconds))
    except HardwareError:
        reset(card)


def clear_statistics(card: RingCard) -> None:
    """Start all counters at 0."""
    for counter in card.counters():
        counter.restart()


def allow_dma(card: RingCard) -> None:
    """Switch PCI bus mastering on. Only after the reset: DMA from before must not resume."""
    card.bus_mastering(True)


def set_address(card: RingCard) -> None:
    """RAL and RAH: write the configured MAC address, if there is one."""
    if card.config.mac is not None:
        card.mac = card.config.mac


def set_more_addresses(card: RingCard) -> None:
    """RAL, RAH: the other addresses to receive for; no address in the entries that are left."""
    for n, register in enumerate(card.RA_MORE):
        if n < len(card.config.more_macs):
            register.write(ADDRESS=as_number(card.config.more_macs[n]), AV=1)
        else:
            register.write(0)


def set_vlans(card: RingCard) -> None:
    """VFTA: the VLANs to receive, by ID; 0 always, since such a frame has a priority and no VLAN
    (IEEE 802.1Q)."""
    wanted = {0, *(card.config.vlan_filter or ())}
    for n, register in enumerate(card.VFTA):
        register.write(sum(1 << vlan % 32 for vlan in wanted if vlan // 32 == n))


def set_key(card: RingCard) -> None:
    """RSSRK: the key as little-endian words."""
    key = rss_key(card.config.rss_key)
    for n, register in enumerate(card.RSSRK):
        register.write(int.from_bytes(key[4 * n : 4 * n + 4], "little"))


def set_redirection(card: RingCard) -> None:
    """RETA: entry i of 128 names queue i modulo the number of queues."""
    for n, register in enumerate(card.RETA):
        register.write(**{f"Q{i}": (4 * n + i) % len(card.rx) for i in range(4)})


def place_receive_rings(card: RingCard) -> None:
    """RDBA, RDLEN, RDH, RDT: address and length of each descriptor ring, with head and tail 0."""
    for q, (bus, descriptors) in enumerate(card.rx):
        card.RDBA[q].write(bus)
        card.RDLEN[q].write(descriptors * 16)
        card.RDH[q].write(0)
        card.RDT[q].write(0)


def offer_descriptors(card: RingCard) -> None:
    """RDT: offer all but one descriptor. A card ignores RDT of a disabled queue."""
    for q, (_, descriptors) in enumerate(card.rx):
        card.RDT[q].write(descriptors - 1)


def enable_receiver(card: RingCard) -> None:
    """Frames arrive from here on."""
    card.switch_receiver(on=True)


def place_transmit_rings(card: RingCard) -> None:
    """TDBA, TDLEN, TDH, TDT: address and length of each descriptor ring, with head and tail 0."""
    for q, (bus, descriptors) in enumerate(card.tx):
        card.TDBA[q].write(bus)
        card.TDLEN[q].write(descriptors * 16)
        card.TDH[q].write(0)
        card.TDT[q].write(0)
