/* The table of registers: address, value after a reset, behaviour. */
#include "registers.h"

#define ONE 1, 4
#define RX_QUEUE(offset, initial, mode, name)                                                      \
    {RX_BANK + (offset), 64, 0x40, initial, mode, name},                                           \
    {                                                                                              \
        RX_BANK_HIGH + (offset), 64, 0x40, initial, mode, name                                     \
    }
#define TX_QUEUE(offset, initial, mode, name)                                                      \
    {                                                                                              \
        TX_BANK + (offset), 128, 0x40, initial, mode, name                                         \
    }

const struct rl_sim_register rl_sim_registers[] = {
    {0, 0, 4, 0, 0, "unknown"},
    {CTRL, ONE, 0, STORE | SET_UP, "CTRL"},
    {STATUS, ONE, 0, READ_ONLY, "STATUS"},
    {CTRL_EXT, ONE, 0, STORE | SET_UP, "CTRL_EXT"},
    {ESDP, ONE, 0, STORE | KEPT, "ESDP"},
    {0x0028, ONE, 0, STORE, "I2CCTL"},
    {0x0200, ONE, 0, STORE | EEPROM, "LEDCTL"},
    {EICR, ONE, 0, STORE, "EICR"},
    {EICS, ONE, 0, STORE, "EICS"},
    {EIAC, ONE, 0, STORE, "EIAC"},
    {EITR, 24, 4, 0, STORE, "EITR"},
    {EIMS, ONE, 0, STORE, "EIMS"},
    {EIMC, ONE, 0, STORE, "EIMC"},
    {0x0890, ONE, 0, STORE, "EIAM"},
    {GPIE, ONE, 0, STORE, "GPIE"},
    {IVAR, 64, 4, 0, STORE, "IVAR"},
    {IVAR_MISC, ONE, 0, STORE, "IVAR_MISC"},
    {EICS_EX, 2, 4, 0, STORE, "EICS_EX"},
    {EIMS_EX, 2, 4, 0, STORE, "EIMS_EX"},
    {EIMC_EX, 2, 4, 0, STORE, "EIMC_EX"},
    {EIAM_EX, 2, 4, 0, STORE, "EIAM_EX"},
    RX_QUEUE(RX_RDBAL, 0, STORE | DMA, "RDBAL"),
    RX_QUEUE(RX_RDBAH, 0, STORE | DMA, "RDBAH"),
    RX_QUEUE(RX_RDLEN, 0, STORE | DMA, "RDLEN"),
    RX_QUEUE(RX_DCA_RXCTRL, DCA_RXCTRL_BIT12, STORE | DMA | SET_UP, "DCA_RXCTRL"),
    RX_QUEUE(RX_RDH, 0, STORE | DMA, "RDH"),
    RX_QUEUE(RX_SRRCTL, 0x402, STORE | DMA, "SRRCTL"),
    RX_QUEUE(RX_RDT, 0, STORE | DMA, "RDT"),
    RX_QUEUE(RX_RXDCTL, 0, STORE | DMA, "RXDCTL"),
    RX_QUEUE(RX_RSCCTL, 0, STORE | DMA, "RSCCTL"),
    {QPRC, 16, 0x40, 0, CLEARS, "QPRC"},
    {QBRC_L, 16, 0x40, 0, CLEARS, "QBRC_L"},
    {QBRC_H, 16, 0x40, 0, CLEARS, "QBRC_H"},
    {QPRDC, 16, 0x40, 0, CLEARS, "QPRDC"},
    {0x2140, 8, 4, 0, STORE | DMA, "RTRPT4C"},
    {RQSMR, 32, 4, 0, STORE, "RQSMR"},
    {0x241C, ONE, 0, CLEARS, "FCOERPDC"},
    {0x2428, 2, 4, 0, CLEARS, "FCOEPRC"}, /* and FCOEDWRC */
    {0x2430, ONE, 0, STORE | DMA, "RTRPCS"},
    {RDRXCTL, ONE, 8u << 17, STORE | DMA | SET_UP, "RDRXCTL"},
    {0x2F04, ONE, 0, STORE | DMA, "PFQDE"},
    {0x2F20, ONE, 0, STORE | DMA, "RDDCC"},
    {RXCTRL, ONE, 0, STORE | DMA | SET_UP, "RXCTRL"},
    {0x3020, ONE, 0, STORE | DMA, "RTRUP2TC"},
    {0x3028, ONE, 0x20, STORE | DMA, "RSCDBU"},
    {0x3008, ONE, 0, STORE, "PFCTOP"},
    {0x3200, 4, 4, 0, STORE, "FCTTV"},
    {0x3220, 16, 4, 0, STORE, "FCRTL"},
    {0x3260, 8, 4, 0, STORE, "FCRTH"},
    {0x32A0, ONE, 0, STORE, "FCRTV"},
    {RXPBSIZE, 8, 4, 0, STORE | DMA | SET_UP, "RXPBSIZE"},
    {0x3D00, ONE, 0, STORE, "FCCFG"},
    {0x3F00, 16, 4, 0, CLEARS, "PXONTXC"}, /* and PXOFFTXC */
    {0x3F60, ONE, 0, CLEARS, "LXONTXC"},
    {0x3F68, ONE, 0, CLEARS, "LXOFFTXC"},
    {MPC, 8, 4, 0, CLEARS, "MPC"},
    {0x4000, 3, 4, 0, CLEARS, "CRCERRS"}, /* and ILLERRC, ERRBC */
    {0x4010, ONE, 0, CLEARS, "MSPDC"},
    {0x4034, 2, 4, 0, CLEARS, "MLFC"}, /* and MRFC */
    {0x4040, ONE, 0, CLEARS, "RLEC"},
    {PRC64, 6, 4, 0, CLEARS, "PRC"},
    {GPRC, ONE, 0, CLEARS, "GPRC"},
    {BPRC, ONE, 0, CLEARS, "BPRC"},
    {MPRC, ONE, 0, CLEARS, "MPRC"},
    {GPTC, ONE, 0, CLEARS, "GPTC"},
    {GORCL, 2, 4, 0, CLEARS, "GORC"},
    {GOTCL, 2, 4, 0, CLEARS, "GOTC"},
    {RUC, ONE, 0, CLEARS, "RUC"},
    {0x40A8, ONE, 0, CLEARS, "RFC"},
    {ROC, ONE, 0, CLEARS, "ROC"},
    {0x40B0, ONE, 0, CLEARS, "RJC"},
    {0x40B4, 3, 4, 0, CLEARS, "MNGPRC"}, /* and MNGPDC, MNGPTC */
    {TORL, 2, 4, 0, CLEARS, "TOR"},
    {TPR, ONE, 0, CLEARS, "TPR"},
    {TPT, ONE, 0, CLEARS, "TPT"},
    {PTC64, 6, 4, 0, CLEARS, "PTC"},
    {0x40F0, 2, 4, 0, CLEARS, "MPTC"}, /* and BPTC */
    {0x4120, ONE, 0, CLEARS, "XEC"},
    {0x4140, 16, 4, 0, CLEARS, "PXONRXCNT"}, /* and PXOFFRXCNT */
    {0x41A4, 2, 4, 0, CLEARS, "LXONRXC"},    /* and LXOFFRXC */
    {0x4200, 8, 4, 0, STORE | EEPROM, "PCS1G"},
    {HLREG0, ONE, HLREG0_TXCRCEN | HLREG0_RXCRCSTRP | HLREG0_TXPADEN,
     STORE | EEPROM | FRAMES | SET_UP, "HLREG0"},
    {0x4244, ONE, 0, READ_ONLY, "HLREG1"},
    {0x4248, ONE, 0xFFFF0000, STORE, "PAP"},
    {MSCA, ONE, 0, STORE, "MSCA"},
    {MSRWD, ONE, 0, STORE, "MSRWD"},
    {MAXFRS, ONE, 1518u << 16, STORE | EEPROM | FRAMES | SET_UP, "MAXFRS"},
    {0x4288, 6, 4, 0, READ_ONLY, "PCSS1"}, /* to MACS, MFLCN among them */
    {0x4294, ONE, 0, STORE, "MFLCN"},
    {AUTOC, ONE, 4u << 13 | 1u << 7, STORE | EEPROM, "AUTOC"},
    {LINKS, ONE, 0, READ_ONLY, "LINKS"},
    {AUTOC2, ONE, 0, STORE | EEPROM, "AUTOC2"},
    {ANLP1, 8, 4, 0, READ_ONLY, "ANLP1"},
    {0x42D0, ONE, 0, READ_ONLY, "MMNGC"},
    {0x4324, ONE, 0, READ_ONLY, "LINKS2"},
    {0x4330, ONE, 0, STORE | EEPROM, "MACC"},
    {RTTDCS, ONE, 0, STORE | DMA | SET_UP, "RTTDCS"},
    {0x4904, 2, 4, 0, STORE | DMA, "RTTDQSEL"},
    {0x4910, 8, 4, 0, STORE | DMA, "RTTDT2C"},
    {0x4950, 8, 4, 0, STORE | DMA, "TXPBTHRESH"},
    {0x4984, ONE, 0, STORE | DMA, "RTTBCNRC"},
    {DMATXCTL, ONE, 0x81000000, STORE | DMA | SET_UP, "DMATXCTL"},
    {0x4A88, 2, 4, 0, STORE | DMA, "DTXTCPFLG"},
    {RXCSUM, ONE, 0, STORE | FRAMES, "RXCSUM"},
    {0x5008, ONE, 0, STORE, "RFCTL"},
    {FCTRL, ONE, 0, STORE | FRAMES, "FCTRL"},
    {VLNCTRL, ONE, 0x8100, STORE | FRAMES, "VLNCTRL"},
    {MCSTCTRL, ONE, 0, STORE | FRAMES, "MCSTCTRL"},
    {0x5118, ONE, 0, CLEARS, "FCCRC"},
    {0x5120, ONE, 0, STORE, "RXMTRL"},
    {0x5128, 8, 4, 0, STORE, "ETQF"},
    {0x5110, ONE, 0, STORE, "VMD_CTL"},
    {0x5188, ONE, 0, STORE, "TSYNCRXCTL"},
    {0x51A4, 3, 4, 0, STORE, "RXSATRH"},
    {0x51B0, ONE, 0, STORE, "PFVTCTL"},
    {0x51E0, 2, 4, 0, STORE, "PFVFRE"},
    {MTA, 128, 4, 0, STORE | FRAMES | KEPT, "MTA"},
    {0x5800, ONE, 0, STORE, "WUC"},
    {0x5808, 3, 4, 0, STORE, "WUFC"}, /* to WUS */
    {MRQC, ONE, 0, STORE | FRAMES, "MRQC"},
    {RETA, 32, 4, 0, STORE | FRAMES, "RETA"},
    {RSSRK, 10, 4, 0, STORE | FRAMES, "RSSRK"},
    TX_QUEUE(TX_TDBAL, 0, STORE | DMA, "TDBAL"),
    TX_QUEUE(TX_TDBAH, 0, STORE | DMA, "TDBAH"),
    TX_QUEUE(TX_TDLEN, 0, STORE | DMA, "TDLEN"),
    TX_QUEUE(TX_DCA_TXCTRL, 0, STORE | DMA, "DCA_TXCTRL"),
    TX_QUEUE(TX_TDH, 0, STORE | DMA, "TDH"),
    TX_QUEUE(TX_TDT, 0, STORE | DMA, "TDT"),
    TX_QUEUE(TX_TXDCTL, 0, STORE | DMA, "TXDCTL"),
    TX_QUEUE(TX_TDWBAL, 0, STORE | DMA, "TDWBAL"),
    TX_QUEUE(TX_TDWBAL + 4, 0, STORE | DMA, "TDWBAH"),
    {DTXMXSZRQ, ONE, 0x10, STORE | DMA | SET_UP, "DTXMXSZRQ"},
    {0x8110, 2, 4, 0, STORE, "PFVFTE"},
    {MTQC, ONE, 0, STORE | DMA | SET_UP, "MTQC"},
    {0x8220, ONE, 0, STORE, "PFDTXGSWC"},
    {TQSM, 32, 4, 0, STORE, "TQSM"},
    {QPTC, 16, 4, 0, CLEARS, "QPTC"},
    {QBTC_L, 32, 4, 0, CLEARS, "QBTC"},
    {0x8784, 2, 4, 0, CLEARS, "FCOEPTC"}, /* and FCOEDWTC */
    {0x87A0, ONE, 0, CLEARS, "O2BSPC"},
    {0x8800, 5, 4, 0, STORE | DMA, "SECTXCTRL"},
    {0x8900, 6, 4, 0, STORE, "IPSTX"},
    {0x8C00, 6, 4, 0, STORE, "TSYNC"}, /* and SYSTIM, TIMINCA */
    {SECRXCTRL, ONE, 1, STORE | DMA | SET_UP, "SECRXCTRL"},
    {SECRXSTAT, ONE, 0, READ_ONLY, "SECRXSTAT"},
    {0x8E00, 13, 4, 0, STORE, "IPSRX"},
    {VFTA, 128, 4, 0, STORE | FRAMES, "VFTA"},
    {RAL, 256, 4, 0, STORE | EEPROM | FRAMES, "RAL/RAH"},
    {0xA600, 256, 4, 0, STORE | KEPT, "MPSAR"},
    {0xC800, ONE, 0, STORE | DMA, "RTTUP2TC"},
    {TXPBSIZE, 8, 4, 0, STORE | DMA | SET_UP, "TXPBSIZE"},
    {0xCD00, ONE, 0, STORE | DMA, "RTTPCS"},
    {0xCD20, 8, 4, 0, STORE | DMA, "RTTPT2C"},
    {0xCF90, ONE, 0, STORE, "TXPCS"},
    {0xCE00, ONE, 0, STORE, "TFCS"},
    {0xE000, 640, 4, 0, STORE | KEPT, "5-tuple filter"}, /* SAQF, DAQF, SDPQF, FTQF, L34TIMIR */
    {0xEA00, 64, 4, 0, STORE, "PSRTYPE"},
    {0xEC00, 8, 4, 0, STORE, "ETQS"},
    {0xEC30, ONE, 0, STORE, "SYNQF"},
    {FDIRCTRL, 31, 4, 0, STORE, "FDIR"},
    {0xF000, 64, 4, 0, STORE, "PFVML2FLT"},
    {0xF100, 64, 4, 0, STORE | KEPT, "PFVLVF"},
    {0xF200, 128, 4, 0, STORE | KEPT, "PFVLVFB"},
    {0xF400, 128, 4, 0, STORE | KEPT, "UTA"},
    {EEC, ONE, EEC_PRESENT, STORE, "EEC"},
    {EERD, ONE, 0, STORE, "EERD"},
    {SWSM, ONE, 0, STORE | KEPT, "SWSM"},
    {0x10148, ONE, 1u << 15, READ_ONLY, "FWSM"},
    {0x10150, ONE, 0, READ_ONLY, "FACTPS"},
    {0x10160, ONE, 0, STORE | KEPT, "SW_FW_SYNC"},
    {0x11000, ONE, 0, STORE, "GCR"},
    {0x11050, ONE, 0, STORE, "GCR_EXT"},
    {0x11070, 2, 4, 0, STORE, "DCA_ID"},
    {0x110C0, ONE, 0, STORE, "PBACL"},
    {EITR_HIGH, 104, 4, 0, STORE, "EITR"},
    {0x15F00, 4, 4, 0, STORE, "HICR"}, /* to FWSTS: no firmware answers */
};

#define REGISTERS (sizeof rl_sim_registers / sizeof *rl_sim_registers)

_Static_assert(REGISTERS < 256, "the number of an entry fits into `map`");

void rl_sim_registers_map(struct rl_sim *sim)
{
    for (uint32_t number = 1; number < REGISTERS; number++) {
        const struct rl_sim_register *entry = &rl_sim_registers[number];
        for (uint32_t i = 0; i < entry->count; i++)
            sim->map[(entry->first + i * entry->stride) / 4] = (uint8_t)number;
    }
}

void rl_sim_registers_reset(struct rl_sim *sim)
{
    for (uint32_t number = 1; number < REGISTERS; number++) {
        const struct rl_sim_register *entry = &rl_sim_registers[number];
        if (entry->mode & (CLEARS | KEPT))
            continue;
        for (uint32_t i = 0; i < entry->count; i++)
            sim->registers[(entry->first + i * entry->stride) / 4] = entry->initial;
    }
    memset(sim->card->tails, 0, sizeof sim->card->tails);
    sim->registers[RXPBSIZE / 4] = 512u << 10;
    sim->registers[TXPBSIZE / 4] = 160u << 10;
    /* An interrupt is unmasked here, because a driver must mask all interrupts again after
     * a reset (datasheet 4.6.3.1). */
    sim->registers[EIMS / 4] = 1u << 20;
    sim->interrupts.on = false;
    sim->interrupts.wanted = sim->interrupts.other = 0;
}

uint32_t rl_sim_canonical(uint32_t reg)
{
    if (reg - SRRCTL_ALIAS < 0x40)
        return RX_BANK + RX_SRRCTL + (reg - SRRCTL_ALIAS) * 0x10;
    if (reg - DCA_RXCTRL_ALIAS < 0x40)
        return RX_BANK + RX_DCA_RXCTRL + (reg - DCA_RXCTRL_ALIAS) * 0x10;
    if (reg - RAL_ALIAS < 0x80)
        return RAL + (reg - RAL_ALIAS);
    if (reg - QPTC_ALIAS < 0x400 && reg % 0x40 == QPTC_ALIAS % 0x40)
        return QPTC + (reg - QPTC_ALIAS) / 0x10;
    switch (reg) {
    case 0x0004:
        return CTRL;
    case 0xEC80:
        return MRQC;
    default:
        break;
    }
    if (reg - 0xEB00 < 0x80)
        return RETA + (reg - 0xEB00);
    if (reg - 0x5480 < 0x40)
        return 0xEA00 + (reg - 0x5480);
    if (reg - 0xEB80 < 0x28)
        return RSSRK + (reg - 0xEB80);
    return reg;
}

/* All words are 0, so no pointer leads anywhere, except the checksum, with which words 0 to 0x3F
 * add up to 0xBABA (datasheet 6.1). The MAC address is only where auto-read puts it: in RAL. */
uint16_t rl_sim_eeprom(const struct rl_sim *sim, uint32_t word)
{
    uint16_t checksum = sim->broken & RL_SIM_BROKEN_EEPROM ? 0xBABB : 0xBABA;
    return word == 0x3F ? checksum : 0;
}
