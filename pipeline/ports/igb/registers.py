"""The registers of the 82576 that the driver uses, by purpose.

The names are those of the datasheet; a pair of registers has the common part of its two names.
Addresses are offsets in BAR 0. The card has 16 queues of each kind.
"""

from ringline.pipeline.ports.registers import table

REGISTERS = table(
    """\
# Device
CTRL         0x00000  -         RW    device control | MASTER_DISABLE 2, SLU 6, FRCSPD 11, FRCDPLX 12, RST 26, RFCE 27, TFCE 28, VME 30
STATUS       0x00008  -         RO    device status | LU 1, LAN_ID 3:2, SPEED 7:6, MASTER_ENABLED 19
EECD         0x00010  -         RO    EEPROM control | EE_PRES 8, AUTO_RD 9
EERD         0x00014  -         RW    EEPROM read | START 0, DONE 1, ADDRESS 15:2, DATA 31:16
MDIC         0x00020  -         RW    access to the registers of the PHY | DATA 15:0, REGADD 20:16, PHYADD 25:21, OP 27:26, READY 28
ICR          0x000C0  -         RO    interrupt causes, acknowledged by reading
IMC          0x000D8  -         WO    interrupt mask clear
EIMC         0x01528  -         WO    extended interrupt mask clear
SWSM         0x05B50  -         RW    semaphores of software, and of software and firmware | SMBI 0, SWESMBI 1
SW_FW_SYNC   0x05B5C  -         RW    what software and firmware hold | PHY0 1, PHY1 2, FW_PHY0 17, FW_PHY1 18

# Receive
RCTL         0x00100  -         RW    receive control | EN 1, UPE 3, MPE 4, BAM 15, VFE 18, SECRC 26
MTA          0x05200  +0x4*128  RW    multicast table
RA           0x05400  -         RW64  first receive address, RAL and RAH | ADDRESS 47:0, AV 63
RA_MORE      0x05408  +0x8*15   RW64  the other receive addresses | ADDRESS 47:0, AV 63
RA_LAST      0x054E0  +0x8*8    RW64  receive addresses 16 to 23
VFTA         0x05600  +0x4*128  RW    VLAN filter table: one bit for each VLAN ID
RXCSUM       0x05000  -         RW    receive checksum control | IPOFLD 8, TUOFLD 9, PCSD 13
MRQC         0x05818  -         RW    multiple receive queues | MRQE 2:0, TCP_IPV4 16, IPV4 17, TCP_IPV6_EX 18, IPV6_EX 19, IPV6 20, TCP_IPV6 21, UDP_IPV4 22, UDP_IPV6 23
RETA         0x05C00  +0x4*32   RW    redirection table | Q0 3:0, Q1 11:8, Q2 19:16, Q3 27:24
RSSRK        0x05C80  +0x4*10   RW    RSS random key
RDBA         0x0C000  +0x40*16  RW64  receive descriptor base, RDBAL and RDBAH
RDLEN        0x0C008  +0x40*16  RW    receive descriptor ring length in bytes
SRRCTL       0x0C00C  +0x40*16  RW    split receive control | BSIZEPACKET 6:0, DESCTYPE 27:25, DROP_EN 31
RDH          0x0C010  +0x40*16  RW    receive descriptor head
RDT          0x0C018  +0x40*16  RW    receive descriptor tail
RXDCTL       0x0C028  +0x40*16  RW    receive descriptor control | PTHRESH 4:0, HTHRESH 12:8, WTHRESH 20:16, ENABLE 25

# Transmit
TCTL         0x00400  -         RW    transmit control | EN 1, PSP 3
TDBA         0x0E000  +0x40*16  RW64  transmit descriptor base, TDBAL and TDBAH
TDLEN        0x0E008  +0x40*16  RW    transmit descriptor ring length in bytes
TDH          0x0E010  +0x40*16  RW    transmit descriptor head
TDT          0x0E018  +0x40*16  RW    transmit descriptor tail
TXDCTL       0x0E028  +0x40*16  RW    transmit descriptor control | PTHRESH 4:0, HTHRESH 12:8, WTHRESH 20:16, ENABLE 25

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
RQDPC        0x0C030  +0x40*16  RC    frames dropped by a queue that had no descriptor
"""  # noqa: E501 - a register is one line
)

# Those of the 82574L, and what each queue has dropped. QEMU's card leaves that at 0, and has the
# same quirk of the counters of good frames as its 82574L.
QUEUE_STATISTICS = {"rx_queue{}_dropped": "RQDPC"}
