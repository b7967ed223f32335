"""The registers of the 82574L that the driver uses, by purpose.

The names are those of the datasheet; a pair of registers has the common part of its two names.
Addresses are offsets in BAR 0. The card has two queues of each kind. Bits that the datasheet only
calls reserved, and that Linux's driver of the card sets or clears (82571.c), are called ONE and
ZERO.
"""

from ringline.pipeline.ports.registers import table

REGISTERS = table(
    """\
# Device
CTRL         0x00000  -         RW    device control | MASTER_DISABLE 2, SLU 6, FRCSPD 11, FRCDPLX 12, RST 26, RFCE 27, TFCE 28, ZERO 29, VME 30
STATUS       0x00008  -         RO    device status | LU 1, SPEED 7:6, MASTER_ENABLED 19
EECD         0x00010  -         RO    EEPROM control | EE_PRES 8, AUTO_RD 9
EERD         0x00014  -         RW    EEPROM read | START 0, DONE 1, ADDRESS 15:2, DATA 31:16
CTRL_EXT     0x00018  -         RW    extended device control | ONE 22, ZERO 23
MDIC         0x00020  -         RW    access to the registers of the PHY | DATA 15:0, REGADD 20:16, PHYADD 25:21, OP 27:26, READY 28
ICR          0x000C0  -         RO    interrupt causes, acknowledged by reading
IMC          0x000D8  -         WO    interrupt mask clear
EXTCNF_CTRL  0x00F00  -         RW    who may access the PHY | MDIO_SW 5
GCR          0x05B00  -         RW    PCI Express control | ONE 22, L1_WITHOUT_L0S 27
GCR2         0x05B64  -         RW    PCI Express control, continued | ONE 0

# Receive
RCTL         0x00100  -         RW    receive control | EN 1, UPE 3, MPE 4, BAM 15, VFE 18, SECRC 26
RFCTL        0x05008  -         RW    receive filter control | EXSTEN 15
MTA          0x05200  +0x4*128  RW    multicast table
RA           0x05400  -         RW64  first receive address, RAL and RAH | ADDRESS 47:0, AV 63
VFTA         0x05600  +0x4*128  RW    VLAN filter table: one bit for each VLAN ID
RA_MORE      0x05408  +0x8*15   RW64  the other receive addresses | ADDRESS 47:0, AV 63
RXCSUM       0x05000  -         RW    receive checksum control | IPOFLD 8, TUOFLD 9, PCSD 13
MRQC         0x05818  -         RW    multiple receive queues | MRQE 1:0, TCP_IPV4 16, IPV4 17, TCP_IPV6 18, IPV6_EX 19, IPV6 20
RETA         0x05C00  +0x4*32   RW    redirection table | Q0 7, Q1 15, Q2 23, Q3 31
RSSRK        0x05C80  +0x4*10   RW    RSS random key
RDBA         0x02800  +0x100*2  RW64  receive descriptor base, RDBAL and RDBAH
RDLEN        0x02808  +0x100*2  RW    receive descriptor ring length in bytes
RDH          0x02810  +0x100*2  RW    receive descriptor head
RDT          0x02818  +0x100*2  RW    receive descriptor tail
RDTR         0x02820  -         RW    receive delay timer
RXDCTL       0x02828  +0x100*2  RW    receive descriptor control | PTHRESH 5:0, HTHRESH 13:8, WTHRESH 21:16, GRAN 24

# Transmit
TCTL         0x00400  -         RW    transmit control | EN 1, PSP 3
TIPG         0x00410  -         RW    gap between frames | IPGT 9:0, IPGR1 19:10, IPGR2 29:20
TDBA         0x03800  +0x100*2  RW64  transmit descriptor base, TDBAL and TDBAH
TDLEN        0x03808  +0x100*2  RW    transmit descriptor ring length in bytes
TDH          0x03810  +0x100*2  RW    transmit descriptor head
TDT          0x03818  +0x100*2  RW    transmit descriptor tail
TXDCTL       0x03828  +0x100*2  RW    transmit descriptor control | PTHRESH 5:0, HTHRESH 13:8, WTHRESH 21:16, ONE 22, GRAN 24
TARC         0x03840  +0x100*2  RW    transmit arbitration | ENABLE 10, ONE 26, ZERO 30:27

# Statistics
CRCERRS      0x04000  -         RC    frames with a wrong CRC
RXERRC       0x0400C  -         RC    frames with an error from the PHY
MPC          0x04010  -         RC    frames missed: no room in the receive packet buffer
GPRC         0x04074  -         RC    good frames received
GORC         0x04088  -         RC64  good bytes received, CRC included, GORCL and GORCH
GPTC         0x04080  -         RC    good frames transmitted
GOTC         0x04090  -         RC64  good bytes transmitted, CRC included, GOTCL and GOTCH
TPR          0x040D0  -         RC    all frames received
TOR          0x040C0  -         RC64  all bytes received, TORL and TORH
TPT          0x040D4  -         RC    all frames transmitted
TOT          0x040C8  -         RC64  all bytes transmitted, TOTL and TOTH
RNBC         0x040A0  -         RC    frames that found no descriptor and waited in the packet buffer
RUC          0x040A4  -         RC    frames received that were too short
ROC          0x040AC  -         RC    frames received that were too long
"""  # noqa: E501 - a register is one line
)

# Names of statistics and their registers. The card counts nothing for each queue. QEMU's card puts
# the sum since its start into the counters of good frames after each read; those of all frames are
# right there too.
STATISTICS = {
    "rx_good_packets": "GPRC",
    "rx_good_bytes": "GORC",
    "rx_packets": "TPR",
    "rx_bytes": "TOR",
    "rx_missed": "MPC",
    "rx_waited": "RNBC",
    "rx_crc_errors": "CRCERRS",
    "rx_phy_errors": "RXERRC",
    "rx_undersize": "RUC",
    "rx_oversize": "ROC",
    "tx_good_packets": "GPTC",
    "tx_good_bytes": "GOTC",
    "tx_packets": "TPT",
    "tx_bytes": "TOT",
}
QUEUE_STATISTICS: dict[str, str] = {}
