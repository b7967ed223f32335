"""Bring the 82599 up: one function per step, in the datasheet's order.

Numbers in brackets are sections of the 82599 datasheet. `STEPS`, at the end, is the whole
sequence: a function that is not in it is not a step. Steps that every family takes are in
`descriptor_rings/steps.py`.

[4.6.7] names more, which no step sets:
 - FHFT, flexible filters: they only wake a machine that sleeps, and waking is off
 - RXFECCERR0.ECCFLT_EN: at an error in the memory of a table it stops the receiver and raises an
   interrupt, and the driver masks that one
 - MCSTCTRL: 0 after a reset, so the card does not look into the multicast table; multicast
   addresses of the configuration are among the receive addresses
 - ETQF, ETQS, SYNQF: off after a reset; SAQF, DAQF, SDPQF: part of the filters that FTQF switches
 - PFQDE, RTRUP2TC, MFLCN: as after a reset, without pools, traffic classes and flow control
 - RFCTL, RSCDBU: about coalescing of frames, which is off in each queue after a reset
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ringline.pipeline.ports.descriptor_rings import eeprom, steps
from ringline.pipeline.ports.ixgbe.card import BACKPLANES, X540, Card
from ringline.pipeline.ports.ixgbe.registers import UNUSED_TABLES
from ringline.shm import frames

LMS_10G_SERIAL = 3
PMA_SFI = 2
RX_BUFFER_KIB = 512  # the whole packet buffer: no flow director, no traffic classes
TX_BUFFER_KIB = 160
ONE_BUFFER = 1  # advanced descriptor, header and payload in the same buffer
MRQE_RSS = 1
VECTOR_0 = 1 << 7  # valid
INTERVAL_10_US = 5  # in units of 2 us


def mask_interrupts(card: Card) -> None:
    """[4.6.3.1] Mask all interrupts: the driver polls."""
    card.EIMC.write(0x7FFFFFFF)
    card.EICR.read()


def disable_master(card: Card) -> None:
    """[4.6.3.2] Let a card that was left running finish its DMA, and reset it if it does not. The
    next step then resets it a second time."""
    steps.finish_dma(card, reset)


def reset(card: Card) -> None:
    """[4.6.3.2] Reset link and software, then leave the card alone for 10 ms."""
    card.CTRL.set("LRST", "RST")
    card.CTRL.wait("RST", 0, card.wait_seconds)
    card.CTRL.wait("LRST", 0, card.wait_seconds)
    time.sleep(steps.RESET_SECONDS)
    card.CTRL.clear("MASTER_DISABLE")
    mask_interrupts(card)


def await_eeprom(card: Card) -> None:
    """[4.6.3] Wait until the card has read its EEPROM, which holds the MAC address."""
    card.EEC.wait("AUTO_RD", 1, card.wait_seconds)


def check_eeprom(card: Card) -> None:
    """Refuse a card whose EEPROM has a wrong checksum. Each of the words 0x03 to 0x0E points
    to a section that counts; that of the firmware does not."""
    if card.device_id != X540:  # its words add up in another way
        eeprom.check(card, card.EEC, sections=range(0x03, 0x0F))


def await_dma(card: Card) -> None:
    """[4.6.3] Wait until the DMA engines are initialised."""
    card.RDRXCTL.wait("DMAIDONE", 1, card.wait_seconds)


def start_link(card: Card) -> None:
    """[4.6.4] Start 10G serial over SFI; the port waits for the link after the last step. A
    backplane negotiates in the mode that its EEPROM has set. The firmware of the card may write
    AUTOC too, so the driver takes the semaphore for it [8.2.3.22.19, 10.5.4].

    The laser is switched on first: kernel drivers switch it off while their interface is down,
    and a reset does not switch it on.
    """
    if card.device_id != X540:  # it has another semaphore
        card.take_part("MAC")
    if card.device_id not in BACKPLANES:
        card.ESDP.clear("SDP3_DATA")
        card.AUTOC2.update(PMA_10G_SERIAL=PMA_SFI)
        card.AUTOC.update(LMS=LMS_10G_SERIAL)
    card.AUTOC.set("RESTART_AN")
    if card.device_id != X540:
        card.release_part("MAC")


def map_statistics(card: Card) -> None:
    """[4.6.5] Count queue n in counter n; a reset has cleared the maps."""
    for n in range(len(card.RQSMR)):
        maps = {f"M{i}": 4 * n + i for i in range(4)}
        card.RQSMR[n].write(**maps)
        card.TQSM[n].write(**maps)


def prepare_interrupt(card: Card) -> None:
    """[4.6.6] [7.3] GPIE, IVAR, EITR: MSI-X vector 0 for a frame on any receive queue, at most one
    message in 10 us. EIAC, EIAM: a message clears and masks its cause, so there is one for each
    time that the lane unmasks it before it sleeps; so EIMS, the last register of [4.6.6], is left
    to the lane."""
    card.GPIE.write(MULTIPLE=1, EIAME=1, PBA=1)
    for register in card.IVAR:
        register.write(RX_EVEN=VECTOR_0, RX_ODD=VECTOR_0)
    card.EITR.write(INTERVAL=INTERVAL_10_US)
    card.EIAC.write(1)
    card.EIAM.write(1)


def clear_tables(card: Card) -> None:
    """[4.6.7] PFUTA, MTA, PFVLVF, PFVLVFB, MPSAR, FTQF: an entry that is left would accept frames,
    or send them to another queue than that of their hash [8.2.3.7.19]."""
    for name in UNUSED_TABLES:
        for entry in getattr(card, name):
            entry.write(0)


def size_receive_buffer(card: Card) -> None:
    """[4.6.7] RXPBSIZE: give the whole packet buffer to the one traffic class."""
    for n, size in enumerate(card.RXPBSIZE):
        size.write(SIZE_KB=RX_BUFFER_KIB if n == 0 else 0)


def strip_crc(card: Card) -> None:
    """[4.6.7] HLREG0 and RDRXCTL: both must be set alike."""
    card.HLREG0.set("RXCRCSTRP")
    card.RDRXCTL.set("CRCSTRIP")


def bound_frames(card: Card) -> None:
    """HLREG0 and MAXFRS: drop longer frames and count them in ROC. The length in MAXFRS is with
    the CRC and without a VLAN tag: the card adds 4 for a tag by itself."""
    card.HLREG0.update(JUMBOEN=card.config.mtu > frames.MTU)
    card.MAXFRS.write(MFS=card.config.frame_max - frames.TAG_BYTES + frames.CRC_BYTES)


def set_receive_dma(card: Card) -> None:
    """[4.6.7] RDRXCTL: these fields do not have the required values after a reset."""
    card.RDRXCTL.update(RSCFRSTSIZE=0, RSCACKC=1, FCOE_WRFIX=1)


def set_filters(card: Card) -> None:
    """[4.6.7] FCTRL: accept broadcast, and every unicast and multicast frame when promiscuous."""
    everything = card.config.promiscuous
    card.FCTRL.update(BAM=1, UPE=everything, MPE=everything)


def filter_vlans(card: Card) -> None:
    """VLNCTRL: drop frames of VLANs that are not in VFTA, if there is a list."""
    card.VLNCTRL.update(VFE=card.config.vlan_filter is not None)


def set_checksums(card: Card) -> None:
    """RXCSUM: write the RSS hash to descriptors, in place of the fragment checksum."""
    card.RXCSUM.set("PCSD")


def set_hash(card: Card) -> None:
    """MRQC: hash IP addresses, and TCP and UDP ports."""
    fields = ("IPV4", "TCP_IPV4", "UDP_IPV4", "IPV6", "TCP_IPV6", "UDP_IPV6")
    card.MRQC.write(MRQE=MRQE_RSS, **dict.fromkeys(fields, 1))


def forbid_no_snoop(card: Card) -> None:
    """[4.6.7] CTRL_EXT: keep DMA cache-coherent."""
    card.CTRL_EXT.set("NS_DIS")


def describe_receive_buffers(card: Card) -> None:
    """[4.6.7] SRRCTL: one buffer per descriptor, of a size that no frame can overrun; a queue
    without descriptors drops, so that it does not block the others. DCA_RXCTRL: bit 12 must be 0.
    """
    kib = frames.data_kib(card.config.frame_max)  # the card cannot write past the end of a buffer
    for q in range(len(card.rx)):
        card.SRRCTL[q].write(BSIZEPACKET=kib, DESCTYPE=ONE_BUFFER, DROP_EN=1)
        card.DCA_RXCTRL[q].clear("RESERVED")


def strip_vlan(card: Card) -> None:
    """RXDCTL: whether the card moves a VLAN tag from the frame to the descriptor."""
    for q in range(len(card.rx)):
        card.RXDCTL[q].update(VME=card.config.vlan_strip)


def enable_receive_queues(card: Card) -> None:
    """[4.6.7] RXDCTL: enable, and wait until the bit reads 1."""
    for q in range(len(card.rx)):
        card.switch_queue(card.RXDCTL[q], on=True)


def finish_frames(card: Card) -> None:
    """[4.6.8] HLREG0: the card appends the CRC and pads frames to 60 bytes."""
    card.HLREG0.set("TXCRCEN", "TXPADEN")


def size_transmit_buffer(card: Card) -> None:
    """[4.6.8] One traffic class with the whole buffer; the arbiter is off during the change."""
    card.RTTDCS.set("ARBDIS")
    card.DTXMXSZRQ.update(MAX_BYTES=0xFFF)
    for n, size in enumerate(card.TXPBSIZE):
        size.write(SIZE_KB=TX_BUFFER_KIB if n == 0 else 0)
    card.MTQC.write(0)
    card.RTTDCS.clear("ARBDIS")


def enable_transmit_dma(card: Card) -> None:
    """[4.6.8] DMATXCTL: before any queue is enabled."""
    card.DMATXCTL.set("TE")


def set_thresholds(card: Card) -> None:
    """[4.6.8] TXDCTL: WTHRESH 0, so that RS is needed only on the last descriptor of a burst."""
    for q in range(len(card.tx)):
        card.TXDCTL[q].update(PTHRESH=36, HTHRESH=8, WTHRESH=0)


def enable_transmit_queues(card: Card) -> None:
    """[4.6.8] TXDCTL: enable, and wait until the bit reads 1."""
    for q in range(len(card.tx)):
        card.switch_queue(card.TXDCTL[q], on=True)


# fmt: off
STEPS: tuple[Callable[[Card], None], ...] = (
    # [4.6.3] interrupts, reset, MAC address
    mask_interrupts, disable_master, reset, await_eeprom, check_eeprom, await_dma,
    steps.set_address,
    # [4.6.4] link
    start_link,
    # [4.6.5] statistics
    map_statistics, steps.clear_statistics,
    # [4.6.6] interrupts
    prepare_interrupt,
    # PCI bus mastering
    steps.allow_dma,
    # [4.6.7] receive: the whole card
    clear_tables, size_receive_buffer, strip_crc, bound_frames, set_receive_dma, set_filters,
    steps.set_more_addresses, steps.set_vlans, filter_vlans, set_checksums, steps.set_key,
    set_hash, steps.set_redirection, forbid_no_snoop,
    # [4.6.7] receive: each queue
    steps.place_receive_rings, describe_receive_buffers, strip_vlan, enable_receive_queues,
    steps.offer_descriptors,
    # [4.6.8] transmit
    finish_frames, size_transmit_buffer, enable_transmit_dma,
    steps.place_transmit_rings, set_thresholds, enable_transmit_queues,
    # [4.6.7] the receiver
    steps.enable_receiver,
)
# fmt: on
