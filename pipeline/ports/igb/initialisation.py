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
from ringline.pipeline.ports.descriptor_rings import eeprom, steps
from ringline.pipeline.ports.e1000e import initialisation as e1000e
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
    steps.finish_dma(card, reset)


def reset(card: Card) -> None:
    """[4.5.5] Reset this port of the card but not its PHY, and leave it alone for 10 ms."""
    card.CTRL.set("RST")
    time.sleep(steps.RESET_SECONDS)
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
    mask_interrupts, disable_master, reset, await_eeprom, check_eeprom, steps.set_address,
    # [4.5.6] flow control
    e1000e.refuse_flow_control,
    # [4.5.7] link
    e1000e.start_link,
    # [4.5.8] statistics
    steps.clear_statistics,
    # PCI bus mastering
    steps.allow_dma,
    # [4.5.9] receive
    e1000e.set_filters, steps.set_more_addresses, clear_last_addresses, steps.set_vlans,
    e1000e.clear_multicast, e1000e.set_checksums, steps.set_key, set_hash, steps.set_redirection,
    e1000e.strip_vlan, steps.place_receive_rings, describe_receive_buffers, enable_receive_queues,
    # [4.5.10] transmit
    steps.place_transmit_rings, enable_transmit_queues, e1000e.enable_transmitter,
    # [4.5.9] the receiver; the card ignores RDT of a queue before
    steps.enable_receiver, steps.offer_descriptors,
)
# fmt: on
