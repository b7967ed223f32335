"""The registers of the 82599 that the driver uses, by purpose.

The names are those of the datasheet; a pair of registers has the common part of its two names.
Addresses are offsets in BAR 0. Arrays per queue cover the 16 queues that RSS can address.
"""

from ringline.pipeline.ports.registers import table

REGISTERS = table(
    """\
# Device
CTRL         0x00000  -         RW    device control | MASTER_DISABLE 2, LRST 3, RST 26
STATUS       0x00008  -         RO    device status | MASTER_ENABLED 19
CTRL_EXT     0x00018  -         RW    extended device control | NS_DIS 16
ESDP         0x00020  -         RW    software-definable pins; the fourth darkens an optical module | SDP3_DATA 3
EICR         0x00800  -         RO    interrupt causes, acknowledged by reading
EIAC         0x00810  -         RW    interrupt causes that their message clears
EITR         0x00820  -         RW    moderation of the first vector | INTERVAL 11:3
EIMS         0x00880  -         RW    interrupt mask set
EIMC         0x00888  -         WO    interrupt mask clear
GPIE         0x00898  -         RW    interrupt modes | MULTIPLE 4, EIAME 30, PBA 31
IVAR         0x00900  +0x4*8    RW    vectors of causes: queues 2n and 2n + 1 | RX_EVEN 7:0, RX_ODD 23:16
EIAM         0x00AD0  -         RW    interrupt causes that their message masks, EIAM_EX(0)
EEC          0x10010  -         RO    EEPROM control | EE_PRES 8, AUTO_RD 9
EERD         0x10014  -         RW    EEPROM read | START 0, DONE 1, ADDRESS 15:2, DATA 31:16
SWSM         0x10140  -         RW    semaphores of software, and of software and firmware | SMBI 0, SWESMBI 1
SW_FW_SYNC   0x10160  -         RW    what software and firmware hold; MAC: registers of the link | MAC 3, FW_MAC 8

# Link
AUTOC        0x042A0  -         RW    link mode | RESTART_AN 12, LMS 15:13
AUTOC2       0x042A8  -         RW    link mode, continued | PMA_10G_SERIAL 17:16
LINKS        0x042A4  -         RO    link status | SPEED 29:28, UP 30
HLREG0       0x04240  -         RW    MAC | TXCRCEN 0, RXCRCSTRP 1, JUMBOEN 2, TXPADEN 10
MAXFRS       0x04268  -         RW    longest frame | MFS 31:16

# Receive
RXCTRL       0x03000  -         RW    receive control | RXEN 0
SECRXCTRL    0x08D00  -         RW    receive security path | RX_DIS 1
SECRXSTAT    0x08D04  -         RO    receive security path, status | SECRX_RDY 0
RXPBSIZE     0x03C00  +0x4*8    RW    receive packet buffer size | SIZE_KB 19:10
RDRXCTL      0x02F00  -         RW    receive DMA control | CRCSTRIP 1, DMAIDONE 3, RSCFRSTSIZE 21:17, RSCACKC 25, FCOE_WRFIX 26
FCTRL        0x05080  -         RW    receive filter | MPE 8, UPE 9, BAM 10
RA           0x05400  -         RW64  first receive address, RAL and RAH | ADDRESS 47:0, AV 63
RA_MORE      0x0A208  +0x8*127  RW64  the other receive addresses | ADDRESS 47:0, AV 63
MTA          0x05200  +0x4*128  RW    multicast table
UTA          0x0F400  +0x4*128  RW    unicast table, PFUTA
VLVF         0x0F100  +0x4*64   RW    VLANs of pools, PFVLVF
VLVFB        0x0F200  +0x4*128  RW    pools of these VLANs, PFVLVFB
MPSAR        0x0A600  +0x8*128  RW64  pools of each receive address
FTQF         0x0E600  +0x4*128  RW    filters that choose a queue by addresses, ports and protocol
VLNCTRL      0x05088  -         RW    VLANs | VFE 30
VFTA         0x0A000  +0x4*128  RW    VLAN filter table: one bit for each VLAN ID
RXCSUM       0x05000  -         RW    receive checksum control | PCSD 13
MRQC         0x05818  -         RW    multiple receive queues | MRQE 3:0, TCP_IPV4 16, IPV4 17, IPV6 20, TCP_IPV6 21, UDP_IPV4 22, UDP_IPV6 23
RETA         0x05C00  +0x4*32   RW    redirection table | Q0 3:0, Q1 11:8, Q2 19:16, Q3 27:24
RSSRK        0x05C80  +0x4*10   RW    RSS random key
SRRCTL       0x02100  +0x4*16   RW    split receive control | BSIZEPACKET 4:0, DESCTYPE 27:25, DROP_EN 28
DCA_RXCTRL   0x02200  +0x4*16   RW    receive DCA control | RESERVED 12
RDBA         0x01000  +0x40*16  RW64  receive descriptor base, RDBAL and RDBAH
RDLEN        0x01008  +0x40*16  RW    receive descriptor ring length in bytes
RDH          0x01010  +0x40*16  RW    receive descriptor head
RDT          0x01018  +0x40*16  RW    receive descriptor tail
RXDCTL       0x01028  +0x40*16  RW    receive descriptor control | ENABLE 25, VME 30

# Transmit
DTXMXSZRQ    0x08100  -         RW    DMA transmit, most bytes requested at a time | MAX_BYTES 11:0
RTTDCS       0x04900  -         RW    transmit descriptor plane | ARBDIS 6
TXPBSIZE     0x0CC00  +0x4*8    RW    transmit packet buffer size | SIZE_KB 19:10
MTQC         0x08120  -         RW    multiple transmit queues
DMATXCTL     0x04A80  -         RW    DMA transmit control | TE 0
TDBA         0x06000  +0x40*16  RW64  transmit descriptor base, TDBAL and TDBAH
TDLEN        0x06008  +0x40*16  RW    transmit descriptor ring length in bytes
TDH          0x06010  +0x40*16  RW    transmit descriptor head
TDT          0x06018  +0x40*16  RW    transmit descriptor tail
TXDCTL       0x06028  +0x40*16  RW    transmit descriptor control | PTHRESH 6:0, HTHRESH 14:8, WTHRESH 22:16, ENABLE 25

# Statistics
RQSMR        0x02300  +0x4*4    RW    receive queue to counter map | M0 3:0, M1 11:8, M2 19:16, M3 27:24
TQSM         0x08600  +0x4*4    RW    transmit queue to counter map | M0 3:0, M1 11:8, M2 19:16, M3 27:24
CRCERRS      0x04000  -         RC    frames with a wrong CRC
MPC          0x03FA0  +0x4*8    RC    frames missed: no room in the receive packet buffer
GPRC         0x04074  -         RC    good frames received
GORC         0x04088  -         RC64  good bytes received, CRC included, GORCL and GORCH
GPTC         0x04080  -         RC    good frames transmitted
GOTC         0x04090  -         RC64  good bytes transmitted, CRC included, GOTCL and GOTCH
RUC          0x040A4  -         RC    frames received that were too short
ROC          0x040AC  -         RC    frames received that were too long
QPRC         0x01030  +0x40*16  RC    frames received by a queue
QPRDC        0x01430  +0x40*16  RC    frames dropped by a queue that had no descriptor
QPTC         0x08680  +0x4*16   RC    frames transmitted by a queue
"""  # noqa: E501 - a register is one line
)

# Tables of which the driver uses nothing, and which have no defined content after a reset.
UNUSED_TABLES = ("UTA", "MTA", "VLVF", "VLVFB", "MPSAR", "FTQF")

# Names of statistics and their registers. Arrays of the first table are added up; those of the
# second are reported per queue.
STATISTICS = {
    "rx_good_packets": "GPRC",
    "rx_good_bytes": "GORC",
    "rx_missed": "MPC",
    "rx_crc_errors": "CRCERRS",
    "rx_undersize": "RUC",
    "rx_oversize": "ROC",
    "tx_good_packets": "GPTC",
    "tx_good_bytes": "GOTC",
}
QUEUE_STATISTICS = {
    "rx_queue{}_packets": "QPRC",
    "rx_queue{}_dropped": "QPRDC",
    "tx_queue{}_packets": "QPTC",
}
