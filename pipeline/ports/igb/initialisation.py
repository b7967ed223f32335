"""Bring the 82576 up: one function per step, in the datasheet's order.

Numbers in brackets are sections of the 82576 datasheet. `STEPS`, at the end, is the whole sequence.
Steps that every family takes are in `descriptor_rings/steps.py`. Those that only the 82574L takes
too are in its `initialisation.py`, where the numbers are those of its datasheet.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.descriptor_rings import eeprom
from ringline.pipeline.ports.descriptor_rings.steps import (
    allow_dma,
    clear_statistics,
    finish_dma,
    offer_descriptors,
    place_receive_rings,
    place_transmit_rings,
    set_key,
    set_more_addresses,
    set_redirection,
    set_vlans,
)
from ringline.pipeline.ports.e1000e.initialisation import (
    RESET_SECONDS,
    clear_multicast,
    enable_receiver,
    enable_transmitter,
    refuse_flow_control,
    set_address,
    set_checksums,
    set_filters,
    start_link,
    strip_vlan,
)
from ringline.pipeline.ports.igb.card import Card
from ringline.shm.errors import HardwareError

BUFFER_KIB = 2  # RL_BUFFER_DATA: the card cannot write past the end of a buffer
ONE_BUFFER = 1  # advanced descriptor, header and payload in the same buffer
MRQE_RSS = 2


def mask_interrupts(card: Card) -> None:
    """[4.5.4] Mask all interrupts: the driver polls."""
    card.EIMC.write(0xFFFFFFFF)
    card.IMC.write(0xFFFFFFFF)
    card.ICR.read()


def disable_master(card: Card) -> None:
    """Let a card that was left running finish its DMA, and reset it if it does not. The next step
    then resets it a second time."""
    finish_dma(card, reset)


def reset(card: Card) -> None:
    """[4.5.5] Reset this port of the card but not its PHY, and leave it alone for 10 ms."""
    card.CTRL.set("RST")
    time.sleep(RESET_SECONDS)
    card.CTRL.wait("RST", 0, card.wait_seconds)
    card.CTRL.clear("MASTER_DISABLE")
    mask_interrupts(card)


def await_eeprom(card: Card) -> None:
    """EECD: wait until the card has read its EEPROM, which holds the MAC address. A card without
    an EEPROM, such as QEMU's, never says so, and works (Linux goes on too)."""
    with contextlib.suppress(HardwareError):
        card.EECD.wait("AUTO_RD", 1, min(deadlines.EEPROM, card.wait_seconds))


def check_eeprom(card: Card) -> None:
    """Refuse a card whose EEPROM has a wrong checksum."""
    eeprom.check(card, card.EECD)


def clear_last_addresses(card: Card) -> None:
    """RAL and RAH, 16 to 23: no address."""
    for address in card.RA_LAST:
        address.write(0)


def set_hash(card: Card) -> None:
    """MRQC: hash IP addresses, and TCP and UDP ports."""
    fields = ("IPV4", "TCP_IPV4", "UDP_IPV4", "IPV6", "TCP_IPV6", "TCP_IPV6_EX", "UDP_IPV6")
    card.MRQC.write(MRQE=MRQE_RSS, **dict.fromkeys(fields, 1))


def describe_receive_buffers(card: Card) -> None:
    """[4.5.9] SRRCTL: one buffer per descriptor, of a size that no frame can overrun: RCTL drops
    frames longer than 1522 bytes. A queue without descriptors drops, so that it does not block the
    others."""
    for q in range(len(card.rx)):
        card.SRRCTL[q].write(BSIZEPACKET=BUFFER_KIB, DESCTYPE=ONE_BUFFER, DROP_EN=1)


def enable_receive_queues(card: Card) -> None:
    """[4.5.9] RXDCTL: write each descriptor back at once; enable, and wait until it reads 1."""
    for q in range(len(card.rx)):
        card.RXDCTL[q].update(PTHRESH=8, HTHRESH=8, WTHRESH=1, ENABLE=1)
        card.RXDCTL[q].wait("ENABLE", 1, card.wait_seconds)


def enable_transmit_queues(card: Card) -> None:
    """[4.5.10] TXDCTL: WTHRESH 0, so that RS is needed only on the last descriptor of a burst;
    enable, and wait until the bit reads 1."""
    for q in range(len(card.tx)):
        card.TXDCTL[q].update(PTHRESH=8, HTHRESH=1, WTHRESH=0, ENABLE=1)
        card.TXDCTL[q].wait("ENABLE", 1, card.wait_seconds)


# fmt: off
STEPS: tuple[Callable[[Card], None], ...] = (
    # [4.5.4], [4.5.5] interrupts, reset, MAC address
    mask_interrupts, disable_master, reset, await_eeprom, check_eeprom, set_address,
    # [4.5.6] flow control
    refuse_flow_control,
    # [4.5.7] link
    start_link,
    # [4.5.8] statistics
    clear_statistics,
    # PCI bus mastering
    allow_dma,
    # [4.5.9] receive
    set_filters, set_more_addresses, clear_last_addresses, set_vlans, clear_multicast,
    set_checksums, set_key, set_hash, set_redirection, strip_vlan,
    place_receive_rings, describe_receive_buffers, enable_receive_queues,
    # [4.5.10] transmit
    place_transmit_rings, enable_transmit_queues, enable_transmitter,
    # [4.5.9] the receiver; the card ignores RDT of a queue before
    enable_receiver, offer_descriptors,
)
# fmt: on
