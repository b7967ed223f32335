"""Bringing the 82599 up: steps in the datasheet's order.

Numbers in brackets are sections of the 82599 datasheet.
"""

from __future__ import annotations

import time

from ringline.pipeline.ports.ixgbe.card import Card
from ringline.pipeline.ports.rss import rss_key
from ringline.shm.errors import HardwareError

MASTER_DISABLE_SECONDS = 0.2
RESET_SECONDS = 0.01
LMS_10G_SERIAL = 3
PMA_SFI = 2
RX_BUFFER_KIB = 512  # all of it: no flow director, no traffic classes
TX_BUFFER_KIB = 160
FRAME_MAX = 1518  # bytes with CRC; the card allows 4 more for a VLAN tag by itself
BUFFER_KIB = 2  # RL_BUFFER_DATA: a frame ends before its buffer does
ONE_BUFFER = 1  # an advanced descriptor, header and payload in one piece
MRQE_RSS = 1


class Initialisation(Card):
    """Every method is a step that leaves one matter settled, and they run in this order."""

    def mask_interrupts(self) -> None:
        """[4.6.3.1] There are none: the driver polls."""
        self.EIMC.write(0x7FFFFFFF)
        self.EICR.read()

    def disable_master(self) -> None:
        """[4.6.3.2] A card that was left running ends its DMA; one that does not is reset twice."""
        self.CTRL.set("MASTER_DISABLE")
        try:
            self.STATUS.wait("MASTER_ENABLED", 0, min(MASTER_DISABLE_SECONDS, self.wait_seconds))
        except HardwareError:
            self.reset()

    def reset(self) -> None:
        """[4.6.3.2] Link and software; then the card is not to be touched for 10 ms."""
        self.CTRL.set("LRST", "RST")
        self.CTRL.wait("RST", 0, self.wait_seconds)
        self.CTRL.wait("LRST", 0, self.wait_seconds)
        time.sleep(RESET_SECONDS)
        self.CTRL.clear("MASTER_DISABLE")
        self.mask_interrupts()

    def await_eeprom(self) -> None:
        """[4.6.3] The card has read its configuration, the MAC address among it."""
        self.EEC.wait("AUTO_RD", 1, self.wait_seconds)

    def await_dma(self) -> None:
        """[4.6.3] The DMA engines are initialised."""
        self.RDRXCTL.wait("DMAIDONE", 1, self.wait_seconds)

    def set_address(self) -> None:
        """RAL and RAH, where it shall not be the card's own."""
        if self.config.mac is not None:
            self.mac = self.config.mac

    def start_link(self) -> None:
        """[4.6.4] 10G serial over SFI; who waits for the link does so at the end. The laser is on
        first: kernel drivers darken it while their interface is down, and a reset leaves it so."""
        self.ESDP.clear("SDP3_DATA")
        self.AUTOC2.update(PMA_10G_SERIAL=PMA_SFI)
        self.AUTOC.update(LMS=LMS_10G_SERIAL)
        self.AUTOC.set("RESTART_AN")

    def map_statistics(self) -> None:
        """[4.6.5] Queue n counts in counter n; a reset has cleared the maps."""
        for n in range(len(self.RQSMR)):
            maps = {f"M{i}": 4 * n + i for i in range(4)}
            self.RQSMR[n].write(**maps)
            self.TQSM[n].write(**maps)

    def clear_statistics(self) -> None:
        """[4.6.5] Counters begin at 0."""
        for counter in self.counters():
            counter.restart()

    def allow_dma(self) -> None:
        """PCI's bus mastering, only now: what the card did before must not go on."""
        self.bus_mastering(True)

    def size_receive_buffer(self) -> None:
        """[4.6.7] RXPBSIZE: all of the packet buffer for the one traffic class."""
        for n, size in enumerate(self.RXPBSIZE):
            size.write(SIZE_KB=RX_BUFFER_KIB if n == 0 else 0)

    def strip_crc(self) -> None:
        """[4.6.7] HLREG0 and RDRXCTL: both, and alike."""
        self.HLREG0.set("RXCRCSTRP")
        self.RDRXCTL.set("CRCSTRIP")

    def bound_frames(self) -> None:
        """HLREG0 and MAXFRS: longer frames are dropped, and counted in ROC."""
        self.HLREG0.clear("JUMBOEN")
        self.MAXFRS.write(MFS=FRAME_MAX)

    def set_receive_dma(self) -> None:
        """[4.6.7] RDRXCTL has fields that do not come up as they must be."""
        self.RDRXCTL.update(RSCFRSTSIZE=0, RSCACKC=1, FCOE_WRFIX=1)

    def set_filters(self) -> None:
        """[4.6.7] FCTRL: broadcast, and everything when promiscuous."""
        self.FCTRL.set("BAM")
        self.set_promiscuous(self.config.promiscuous)

    def set_checksums(self) -> None:
        """RXCSUM: the hash takes the place of the fragment checksum in descriptors."""
        self.RXCSUM.set("PCSD")

    def set_hash(self) -> None:
        """RSSRK, as little-endian words, and MRQC: addresses, and ports where there are some."""
        key = rss_key(self.config.rss_key)
        for n, register in enumerate(self.RSSRK):
            register.write(int.from_bytes(key[4 * n : 4 * n + 4], "little"))
        fields = ("IPV4", "TCP_IPV4", "UDP_IPV4", "IPV6", "TCP_IPV6", "UDP_IPV6")
        self.MRQC.write(MRQE=MRQE_RSS, **dict.fromkeys(fields, 1))

    def set_redirection(self) -> None:
        """RETA: 128 entries, dealt to the queues in turn."""
        for n, register in enumerate(self.RETA):
            register.write(**{f"Q{i}": (4 * n + i) % len(self.rx) for i in range(4)})

    def forbid_no_snoop(self) -> None:
        """[4.6.7] CTRL_EXT: DMA keeps to cache coherence."""
        self.CTRL_EXT.set("NS_DIS")

    def place_receive_rings(self) -> None:
        """[4.6.7] Where the descriptors are."""
        for q, (bus, descriptors) in enumerate(self.rx):
            self.RDBA[q].write(bus)
            self.RDLEN[q].write(descriptors * 16)
            self.RDH[q].write(0)
            self.RDT[q].write(0)

    def describe_receive_buffers(self) -> None:
        """[4.6.7] SRRCTL: one buffer, which no frame can pass; one full queue does not hold up
        the others. Bit 12 of DCA_RXCTRL must be cleared."""
        for q in range(len(self.rx)):
            self.SRRCTL[q].write(BSIZEPACKET=BUFFER_KIB, DESCTYPE=ONE_BUFFER, DROP_EN=1)
            self.DCA_RXCTRL[q].clear("RESERVED")

    def strip_vlan(self) -> None:
        """RXDCTL: whether a tag goes from the frame to the descriptor."""
        for q in range(len(self.rx)):
            self.RXDCTL[q].update(VME=self.config.vlan_strip)

    def enable_receive_queues(self) -> None:
        """[4.6.7] RXDCTL."""
        for q in range(len(self.rx)):
            self.switch_queue(self.RXDCTL[q], on=True)

    def offer_descriptors(self) -> None:
        """[4.6.7] RDT, which counts only once the queue is enabled."""
        for q, (_, descriptors) in enumerate(self.rx):
            self.RDT[q].write(descriptors - 1)

    def finish_frames(self) -> None:
        """[4.6.8] HLREG0: CRC and padding to 60 bytes are the card's business."""
        self.HLREG0.set("TXCRCEN", "TXPADEN")

    def size_transmit_buffer(self) -> None:
        """[4.6.8] One traffic class; the arbiter stands still meanwhile."""
        self.RTTDCS.set("ARBDIS")
        self.DTXMXSZRQ.update(MAX_BYTES=0xFFF)
        for n, size in enumerate(self.TXPBSIZE):
            size.write(SIZE_KB=TX_BUFFER_KIB if n == 0 else 0)
        self.MTQC.write(0)
        self.RTTDCS.clear("ARBDIS")

    def enable_transmit_dma(self) -> None:
        """[4.6.8] DMATXCTL, before any queue."""
        self.DMATXCTL.set("TE")

    def place_transmit_rings(self) -> None:
        """[4.6.8] Where the descriptors are."""
        for q, (bus, descriptors) in enumerate(self.tx):
            self.TDBA[q].write(bus)
            self.TDLEN[q].write(descriptors * 16)
            self.TDH[q].write(0)
            self.TDT[q].write(0)

    def set_thresholds(self) -> None:
        """[4.6.8] TXDCTL: with WTHRESH 0, RS on the last descriptor of a burst is enough."""
        for q in range(len(self.tx)):
            self.TXDCTL[q].update(PTHRESH=36, HTHRESH=8, WTHRESH=0)

    def enable_transmit_queues(self) -> None:
        """[4.6.8] TXDCTL."""
        for q in range(len(self.tx)):
            self.switch_queue(self.TXDCTL[q], on=True)

    def enable_receiver(self) -> None:
        """[4.6.7] Last: from here frames arrive."""
        self.switch_receiver(on=True)


STEPS = tuple(name for name in vars(Initialisation) if not name.startswith("_"))
