"""Bring the 82574L up: one function per step, in the datasheet's order.

Numbers in brackets are sections of the 82574 datasheet. What Linux's driver of the card (82571.c)
sets and the datasheet does not explain, says so. `STEPS`, at the end, is the whole sequence. Steps
that every family takes are in `descriptor_rings/steps.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ringline.pipeline.ports.descriptor_rings import eeprom, steps
from ringline.pipeline.ports.e1000e.card import Card

PHY_SECONDS = 0.025  # until the PHY has its settings from the EEPROM (Linux)
PHY_CONTROL = 0  # register of a PHY (IEEE 802.3, 22.2.4)
NEGOTIATE = 1 << 12 | 1 << 9  # enable, and restart; not powered down
MRQE_RSS = 1  # two queues


def mask_interrupts(card: Card) -> None:
    """[4.6.1] Mask all interrupts: the driver polls."""
    card.IMC.write(0xFFFFFFFF)
    card.ICR.read()


def disable_master(card: Card) -> None:
    """[3.1.3.10] Let a card that was left running finish its DMA, and reset it if it does not. The
    next step then resets it a second time."""
    steps.finish_dma(card, reset)


def reset(card: Card) -> None:
    """[4.6.2] Reset all but the PHY, and leave the card alone for 10 ms. The driver has the PHY
    meanwhile, so that the firmware does not use it. Both as Linux does."""
    card.take_phy()
    card.CTRL.set("RST")
    time.sleep(steps.RESET_SECONDS)
    card.CTRL.wait("RST", 0, card.wait_seconds)
    card.CTRL.clear("MASTER_DISABLE")
    card.release_phy()
    mask_interrupts(card)


def await_eeprom(card: Card) -> None:
    """EECD: wait until the card has read its EEPROM, which holds the MAC address and settings of
    the PHY (Linux)."""
    card.EECD.wait("AUTO_RD", 1, card.wait_seconds)
    time.sleep(PHY_SECONDS)


def check_eeprom(card: Card) -> None:
    """Refuse a card whose EEPROM has a wrong checksum. Some firmware changes words and leaves the
    checksum to Linux's driver, which mends it once (82571.c); this one writes no EEPROM."""

    def advice() -> str:
        if eeprom.word(card, 0x10) & 0x10 or eeprom.word(card, 0x23) & 0x8000:
            return ""
        return (
            "First let the kernel's driver e1000e have the card for a moment: it mends a checksum "
            "that the firmware of the card has left behind. If that does not help: "
        )

    eeprom.check(card, card.EECD, advice=advice)


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


def refuse_flow_control(card: Card) -> None:
    """CTRL: send no pause frames, and obey none; the thresholds are 0 after a reset."""
    card.CTRL.clear("RFCE", "TFCE")


def start_link(card: Card) -> None:
    """[4.6.3.1] Let the MAC follow the PHY, and the PHY negotiate; the port waits for the link
    after the last step. Kernel drivers power the PHY down while their interface is down, and a
    reset does not power it up."""
    card.CTRL.update(SLU=1, FRCSPD=0, FRCDPLX=0)
    card.take_phy()
    card.write_phy(PHY_CONTROL, NEGOTIATE)
    card.release_phy()


def set_filters(card: Card) -> None:
    """[4.6.5] RCTL: accept broadcast, and every unicast and multicast frame when promiscuous, but
    those of other VLANs than in VFTA if there is a list. Leave the CRC away."""
    everything, vlans = card.config.promiscuous, card.config.vlan_filter is not None
    card.RCTL.update(BAM=1, UPE=everything, MPE=everything, VFE=vlans, SECRC=1)


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
    """MRQC: hash IP addresses, and TCP ports; this chip cannot hash UDP ports."""
    card.MRQC.write(MRQE=MRQE_RSS, TCP_IPV4=1, IPV4=1, TCP_IPV6=1, IPV6=1)


def strip_vlan(card: Card) -> None:
    """CTRL: whether the card moves a VLAN tag from the frame to the descriptor."""
    card.CTRL.update(VME=card.config.vlan_strip)


def set_receive_thresholds(card: Card) -> None:
    """[4.6.5] RXDCTL, RDTR: fetch in advance, and write each descriptor back at once."""
    card.RDTR.write(0)
    for q in range(len(card.rx)):
        card.RXDCTL[q].update(PTHRESH=32, HTHRESH=4, WTHRESH=0, GRAN=1)


def set_gap(card: Card) -> None:
    """[4.6.6] TIPG: the gap that IEEE 802.3 wants, in the units of the datasheet."""
    card.TIPG.write(IPGT=8, IPGR1=8, IPGR2=6)


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


# fmt: off
STEPS: tuple[Callable[[Card], None], ...] = (
    # [4.6.1], [3.1.3.10], [4.6.2] interrupts, reset, MAC address
    mask_interrupts, disable_master, reset, await_eeprom, check_eeprom, stop_units,
    set_required_bits, steps.set_address,
    # [4.6.3] link
    refuse_flow_control, start_link,
    # [4.6.4] statistics
    steps.clear_statistics,
    # PCI bus mastering
    steps.allow_dma,
    # [4.6.5] receive
    set_filters, steps.set_more_addresses, steps.set_vlans, clear_multicast, set_descriptors,
    set_checksums, steps.set_key, set_hash, steps.set_redirection, strip_vlan,
    steps.place_receive_rings, set_receive_thresholds,
    # [4.6.6] transmit
    set_gap, steps.place_transmit_rings, set_thresholds, enable_transmitter,
    # [4.6.5] the receiver
    steps.enable_receiver, steps.offer_descriptors,
)
# fmt: on
