"""Bring the 82574L up: one function per step, in the datasheet's order.

Numbers in brackets are sections of the 82574 datasheet. What Linux's driver of the card (82571.c)
sets and the datasheet does not explain, says so. `STEPS`, at the end, is the whole sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.e1000e.card import Card
from ringline.pipeline.ports.rss import rss_key
from ringline.shm.errors import HardwareError

RESET_SECONDS = 0.01
PHY_SECONDS = 0.025  # until the PHY has its settings from the EEPROM (Linux)
PHY_CONTROL = 0  # register of a PHY (IEEE 802.3, 22.2.4)
NEGOTIATE = 1 << 12 | 1 << 9  # enable, and restart; not powered down
MRQE_RSS = 1  # two queues


def mask_interrupts(card: Card) -> None:
    """[4.6.1] Mask all interrupts: the driver polls."""
    card.IMC.write(0xFFFFFFFF)
    card.ICR.read()


def disable_master(card: Card) -> None:
    """[4.6.2] Let a card that was left running finish its DMA, and reset it if it does not. The
    next step then resets it a second time."""
    card.CTRL.set("MASTER_DISABLE")
    try:
        card.STATUS.wait("MASTER_ENABLED", 0, min(deadlines.MASTER_DISABLE, card.wait_seconds))
    except HardwareError:
        reset(card)


def reset(card: Card) -> None:
    """[4.6.2] Reset all but the PHY, and leave the card alone for 10 ms. The driver has the PHY
    meanwhile, so that the firmware does not use it (Linux)."""
    card.take_phy()
    card.CTRL.set("RST")
    time.sleep(RESET_SECONDS)
    card.CTRL.wait("RST", 0, card.wait_seconds)
    card.CTRL.clear("MASTER_DISABLE")
    card.EXTCNF_CTRL.clear("MDIO_SW")
    mask_interrupts(card)


def await_eeprom(card: Card) -> None:
    """[4.6.2] Wait until the card has read its EEPROM, which holds the MAC address and settings of
    the PHY."""
    card.EECD.wait("AUTO_RD", 1, card.wait_seconds)
    time.sleep(PHY_SECONDS)


def stop_units(card: Card) -> None:
    """RCTL, TCTL: off, and without a mode of an earlier driver. A reset does that; QEMU's card does
    not before version 8."""
    card.RCTL.write(SECRC=1)
    card.TCTL.clear("EN")


def set_required_bits(card: Card) -> None:
    """Bits that the chip needs (Linux): of the device, and errata of PCI Express."""
    card.CTRL.clear("ZERO")
    card.CTRL_EXT.update(ONE=1, ZERO=0)
    card.GCR.set("ONE", "L1_WITHOUT_L0S")
    card.GCR2.set("ONE")


def set_address(card: Card) -> None:
    """RAL and RAH: write the configured MAC address, if there is one, and no other."""
    if card.config.mac is not None:
        card.mac = card.config.mac
    for address in card.RA_MORE:
        address.write(0)


def start_link(card: Card) -> None:
    """[4.6.3] Let the MAC follow the PHY, without flow control, and the PHY negotiate; the port
    waits for the link after the last step. Kernel drivers power the PHY down while their interface
    is down, and a reset does not power it up."""
    card.CTRL.update(SLU=1, FRCSPD=0, FRCDPLX=0, RFCE=0, TFCE=0)
    card.take_phy()
    card.write_phy(PHY_CONTROL, NEGOTIATE)
    card.EXTCNF_CTRL.clear("MDIO_SW")


def clear_statistics(card: Card) -> None:
    """[4.6.4] Start all counters at 0."""
    for counter in card.counters():
        counter.restart()


def allow_dma(card: Card) -> None:
    """Switch PCI bus mastering on. Only after the reset: DMA from before must not resume."""
    card.bus_mastering(True)


def clear_multicast(card: Card) -> None:
    """[4.6.5] MTA: accept no multicast frame, unless promiscuous."""
    for word in card.MTA:
        word.write(0)


def set_descriptors(card: Card) -> None:
    """[4.6.5] RFCTL: extended receive descriptors, which have the hash. The size of a buffer is
    that of RCTL after a reset, 2048 bytes; longer frames than 1522 bytes are dropped."""
    card.RFCTL.set("EXSTEN")


def set_checksums(card: Card) -> None:
    """[4.6.5] RXCSUM: check, and write the RSS hash in place of the fragment checksum."""
    card.RXCSUM.set("IPOFLD", "TUOFLD", "PCSD")


def set_hash(card: Card) -> None:
    """RSSRK: the key as little-endian words. MRQC: hash IP addresses, and TCP ports; this chip
    cannot hash UDP ports."""
    key = rss_key(card.config.rss_key)
    for n, register in enumerate(card.RSSRK):
        register.write(int.from_bytes(key[4 * n : 4 * n + 4], "little"))
    card.MRQC.write(MRQE=MRQE_RSS, TCP_IPV4=1, IPV4=1, TCP_IPV6=1, IPV6=1)


def set_redirection(card: Card) -> None:
    """RETA: entry i of 128 names queue i modulo the number of queues."""
    for n, register in enumerate(card.RETA):
        register.write(**{f"Q{i}": (4 * n + i) % len(card.rx) for i in range(4)})


def strip_vlan(card: Card) -> None:
    """CTRL: whether the card moves a VLAN tag from the frame to the descriptor."""
    card.CTRL.update(VME=card.config.vlan_strip)


def place_receive_rings(card: Card) -> None:
    """[4.6.5] Write address and length of each descriptor ring, with head and tail 0. RXDCTL,
    RDTR: fetch in advance, and write each descriptor back at once."""
    card.RDTR.write(0)
    for q, (bus, descriptors) in enumerate(card.rx):
        card.RDBA[q].write(bus)
        card.RDLEN[q].write(descriptors * 16)
        card.RDH[q].write(0)
        card.RDT[q].write(0)
        card.RXDCTL[q].update(PTHRESH=32, HTHRESH=4, WTHRESH=0, GRAN=1)


def set_gap(card: Card) -> None:
    """[4.6.6] TIPG: the gap that IEEE 802.3 wants, in the units of the datasheet."""
    card.TIPG.write(IPGT=8, IPGR1=8, IPGR2=6)


def place_transmit_rings(card: Card) -> None:
    """[4.6.6] Write address and length of each descriptor ring, with head and tail 0."""
    for q, (bus, descriptors) in enumerate(card.tx):
        card.TDBA[q].write(bus)
        card.TDLEN[q].write(descriptors * 16)
        card.TDH[q].write(0)
        card.TDT[q].write(0)


def set_thresholds(card: Card) -> None:
    """[4.6.6] TXDCTL: WTHRESH 0, so that RS is needed only on the last descriptor of a burst.
    TARC: both queues take turns."""
    for q in range(len(card.TXDCTL)):
        card.TXDCTL[q].update(PTHRESH=31, HTHRESH=1, WTHRESH=0, ONE=1, GRAN=1)
        card.TARC[q].set("ENABLE")
    card.TARC[0].update(ONE=1, ZERO=0)


def enable_transmitter(card: Card) -> None:
    """[4.6.6] TCTL: pad frames to 60 bytes."""
    card.TCTL.set("EN", "PSP")


def enable_receiver(card: Card) -> None:
    """[4.6.5] RCTL: accept broadcast, and every unicast and multicast frame when promiscuous."""
    card.switch_receiver(on=True)


def offer_descriptors(card: Card) -> None:
    """[4.6.5] RDT: offer all but one descriptor. Frames arrive from here on, so this is the last
    step."""
    for q, (_, descriptors) in enumerate(card.rx):
        card.RDT[q].write(descriptors - 1)


# fmt: off
STEPS: tuple[Callable[[Card], None], ...] = (
    # [4.6.1], [4.6.2] interrupts, reset, MAC address
    mask_interrupts, disable_master, reset, await_eeprom, stop_units, set_required_bits,
    set_address,
    # [4.6.3] link
    start_link,
    # [4.6.4] statistics
    clear_statistics,
    # PCI bus mastering
    allow_dma,
    # [4.6.5] receive
    clear_multicast, set_descriptors, set_checksums, set_hash, set_redirection, strip_vlan,
    place_receive_rings,
    # [4.6.6] transmit
    set_gap, place_transmit_rings, set_thresholds, enable_transmitter,
    # [4.6.5] the receiver
    enable_receiver, offer_descriptors,
)
# fmt: on
