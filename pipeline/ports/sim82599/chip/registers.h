/* Addresses and bits of the 82599 that the model uses, with the names of the
 * datasheet. The table in registers.c has the other registers. */
#ifndef RINGLINE_SIM82599_REGISTERS_H
#define RINGLINE_SIM82599_REGISTERS_H
#include "model.h"

#define CTRL 0x0000
#define CTRL_MASTER_DISABLE (1u << 2)
#define CTRL_LRST (1u << 3)
#define CTRL_RST (1u << 26)
#define STATUS 0x0008
#define STATUS_LINK_UP (1u << 7)
#define STATUS_MASTER_ENABLED (1u << 19)
#define CTRL_EXT 0x0018
#define CTRL_EXT_NS_DIS (1u << 16)
#define ESDP 0x0020
#define ESDP_DARK (1u << 3)
#define EICR 0x0800
#define EICS 0x0808
#define EIAC 0x0810
#define EITR 0x0820
#define EITR_HIGH 0x12300
#define EIMS 0x0880
#define EIMC 0x0888
#define GPIE 0x0898
#define GPIE_MULTIPLE (1u << 4)
#define GPIE_EIAME (1u << 30)
#define EICR_LINK (1u << 20)
#define EICS_EX 0x0A90 /* two registers, for 64 vectors; so are the next ones */
#define EIMS_EX 0x0AA0
#define EIMC_EX 0x0AB0
#define EIAM_EX 0x0AD0
#define IVAR 0x0900
#define IVAR_MISC 0x0A00
#define IVAR_VALID 0x80808080u
#define IVAR_ENTRY_VALID 0x80u

/* Per receive queue q: 0x1000 + 0x40 q; from queue 64 on, 0xD000 + 0x40 (q - 64). */
#define RX_BANK 0x1000
#define RX_BANK_HIGH 0xD000
#define RX_RDBAL 0x00
#define RX_RDBAH 0x04
#define RX_RDLEN 0x08
#define RING_BYTES 0xFFF80u /* RDLEN and TDLEN; of a base, the lowest 7 bits are 0 too */
#define RX_DCA_RXCTRL 0x0C
#define RX_RDH 0x10
#define RX_SRRCTL 0x14
#define RX_RDT 0x18
#define RX_RXDCTL 0x28
#define RX_RSCCTL 0x2C
#define DCA_RXCTRL_BIT12 (1u << 12)
#define SRRCTL_BSIZEPACKET 0x1Fu
#define SRRCTL_DESCTYPE(value) ((value) >> 25 & 7)
#define SRRCTL_DROP_EN (1u << 28)
#define XDCTL_ENABLE (1u << 25)
#define RXDCTL_VME (1u << 30)
#define RSCCTL_RSCEN 1u
#define SRRCTL_ALIAS 0x2100
#define DCA_RXCTRL_ALIAS 0x2200

#define QPRC 0x1030 /* + 0x40 n, n < 16; like the next three */
#define QBRC_L 0x1034
#define QBRC_H 0x1038
#define QPRDC 0x1430
#define RQSMR 0x2300
#define RDRXCTL 0x2F00
#define RDRXCTL_CRC_STRIP (1u << 1)
#define RDRXCTL_DMAIDONE (1u << 3)
#define RDRXCTL_RSCFRSTSIZE (0x1Fu << 17)
#define RDRXCTL_MUST (3u << 25) /* RSCACKC and FCOE_WRFIX */
#define RXCTRL 0x3000
#define RXCTRL_RXEN 1u
#define RXPBSIZE 0x3C00
#define PBSIZE_KIB(value) ((value) >> 10 & 0x3FF)
#define MPC 0x3FA0
#define PRC64 0x405C
#define GPRC 0x4074
#define BPRC 0x4078
#define MPRC 0x407C
#define GPTC 0x4080
#define GORCL 0x4088
#define GOTCL 0x4090
#define RUC 0x40A4
#define ROC 0x40AC
#define TORL 0x40C0
#define TPR 0x40D0
#define TPT 0x40D4
#define PTC64 0x40D8
#define HLREG0 0x4240
#define HLREG0_TXCRCEN (1u << 0)
#define HLREG0_RXCRCSTRP (1u << 1)
#define HLREG0_JUMBOEN (1u << 2)
#define HLREG0_TXPADEN (1u << 10)
#define HLREG0_LPBK (1u << 15)
#define MSCA 0x425C
#define MSRWD 0x4260
#define MSCA_BUSY (1u << 30)
#define MAXFRS 0x4268
#define AUTOC 0x42A0
#define AUTOC_FORCE_UP (1u << 0)
#define AUTOC_RESTART (1u << 12)
#define AUTOC_LMS(value) ((value) >> 13 & 7)
#define AUTOC_LMS_SERIAL_10G 3
#define AUTOC_LMS_KX4 4                       /* and above: a backplane, negotiated */
#define AUTOC_BACKPLANE (3u << 30 | 1u << 16) /* KX4, KX and KR are offered */
#define LINKS 0x42A4
#define LINKS_UP_10G (1u << 30 | 3u << 28)
#define LINKS_NEGOTIATED (1u << 31)
#define ANLP1 0x42B0
#define ANLP1_DONE (0xCu << 16)
#define AUTOC2 0x42A8
#define AUTOC2_PMA(value) ((value) >> 16 & 3)
#define AUTOC2_PMA_SFI 2
#define RTTDCS 0x4900
#define RTTDCS_ARBDIS (1u << 6)
#define DMATXCTL 0x4A80
#define DMATXCTL_TE 1u
#define RXCSUM 0x5000
#define RXCSUM_PCSD (1u << 13)
#define FCTRL 0x5080
#define FCTRL_MPE (1u << 8)
#define FCTRL_UPE (1u << 9)
#define FCTRL_BAM (1u << 10)
#define VLNCTRL 0x5088
#define VLNCTRL_VFE (1u << 30)
#define MCSTCTRL 0x5090
#define MCSTCTRL_MFE (1u << 2)
#define MTA 0x5200
#define RAL_ALIAS 0x5400
#define MRQC 0x5818
#define MRQC_MRQE 0xFu
#define MRQC_RSS 1u
#define MRQC_TCP_IPV4 (1u << 16)
#define MRQC_IPV4 (1u << 17)
#define MRQC_IPV6 (1u << 20)
#define MRQC_TCP_IPV6 (1u << 21)
#define MRQC_UDP_IPV4 (1u << 22)
#define MRQC_UDP_IPV6 (1u << 23)
#define RETA 0x5C00
#define RSSRK 0x5C80
#define VFTA 0xA000
#define RAL 0xA200
#define RAH_AV (1u << 31)
#define RAH_KEPT (RAH_AV | 0xFFFF)

/* Per transmit queue q: 0x6000 + 0x40 q. */
#define TX_BANK 0x6000
#define TX_TDBAL 0x00
#define TX_TDBAH 0x04
#define TX_TDLEN 0x08
#define TX_DCA_TXCTRL 0x0C
#define TX_TDH 0x10
#define TX_TDT 0x18
#define TX_TXDCTL 0x28
#define TX_TDWBAL 0x38
#define TXDCTL_WTHRESH(value) ((value) >> 16 & 0x7F)
#define QPTC_ALIAS 0x6030
#define DTXMXSZRQ 0x8100
#define DTXMXSZRQ_NO_DCB 0xFFFu
#define MTQC 0x8120
#define TQSM 0x8600
#define QPTC 0x8680
#define QBTC_L 0x8700
#define SECRXCTRL 0x8D00
#define SECRXCTRL_RX_DIS (1u << 1)
#define SECRXSTAT 0x8D04
#define SECRXSTAT_READY 1u
#define TXPBSIZE 0xCC00
#define EEC 0x10010
#define EEC_REQUEST (1u << 6)
#define EEC_GRANT (1u << 7)
#define EEC_PRESENT (1u << 8)
#define EEC_AUTO_RD (1u << 9)
#define EERD 0x10014
#define EERD_START (1u << 0)
#define EERD_DONE (1u << 1)
#define FDIRCTRL 0xEE00
#define FDIRCTRL_DONE (1u << 3)
#define SWSM 0x10140
#define SWSM_SMBI 1u

/* Behaviour of a register; it never has both STORE and READ_ONLY. */
#define STORE 0x01 /* keeps what is written */
#define READ_ONLY 0x02
#define CLEARS 0x04 /* a read clears it: a statistic, which survives a reset */
#define EEPROM 0x08 /* loaded from the EEPROM after a reset; an earlier write is a fault */
#define DMA 0x10    /* of the DMA engines; a write before their initialisation is a fault */
#define FRAMES 0x20 /* changes what the card does with a received frame */
#define SET_UP 0x40 /* rl_sim_refresh reads it */
#define KEPT 0x80   /* a reset does not change it, or the datasheet gives no value after one */

struct rl_sim_register {
    uint32_t first;
    uint16_t count;
    uint16_t stride;
    uint32_t initial;
    uint8_t mode;
    char name[15];
};

/* Indexed by the entries of `map`; entry 0 stands for no register. */
extern const struct rl_sim_register rl_sim_registers[];

void rl_sim_registers_map(struct rl_sim *sim);
void rl_sim_registers_reset(struct rl_sim *sim);

/* A word of the EEPROM. */
uint16_t rl_sim_eeprom(const struct rl_sim *sim, uint32_t word);

/* Some registers have two addresses; return the one in the register table. */
uint32_t rl_sim_canonical(uint32_t reg);

static inline const struct rl_sim_register *rl_sim_register(const struct rl_sim *sim, uint32_t reg)
{
    return &rl_sim_registers[sim->map[reg / 4]];
}

/* Address of a register of a receive queue. */
static inline uint32_t rl_sim_rx_register(uint32_t queue, uint32_t offset)
{
    return (queue < 64 ? RX_BANK + queue * 0x40 : RX_BANK_HIGH + (queue - 64) * 0x40) + offset;
}

static inline uint32_t rl_sim_tx_register(uint32_t queue, uint32_t offset)
{
    return TX_BANK + queue * 0x40 + offset;
}
#endif
