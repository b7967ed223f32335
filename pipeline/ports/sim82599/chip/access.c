/* Reads and writes of registers, with their side effects and faults. */
#include "registers.h"

/* The queue of a register, and the register's offset in the bank of the queue. */
struct place {
    uint32_t queue;
    uint32_t offset;
};

static bool of_rx_queue(uint32_t reg, struct place *place)
{
    bool low = reg - RX_BANK < 64 * 0x40;
    if (!low && reg - RX_BANK_HIGH >= 64 * 0x40)
        return false;
    place->queue = low ? (reg - RX_BANK) / 0x40 : 64 + (reg - RX_BANK_HIGH) / 0x40;
    place->offset = reg % 0x40;
    return true;
}

static bool of_tx_queue(uint32_t reg, struct place *place)
{
    if (reg - TX_BANK >= 128 * 0x40)
        return false;
    place->queue = (reg - TX_BANK) / 0x40;
    place->offset = reg % 0x40;
    return true;
}

static uint32_t read_ctrl(struct rl_sim *sim)
{
    rl_sim_poll(sim, &sim->reset_wait);
    uint32_t value = sim->registers[CTRL / 4];
    return sim->reset_wait ? value : value & ~(CTRL_RST | CTRL_LRST);
}

static uint32_t read_queue(struct rl_sim *sim, uint32_t reg, const struct place *place, bool rx)
{
    uint32_t value = sim->registers[reg / 4];
    struct rl_sim_rx_queue *receiver = &sim->rx[place->queue];
    struct rl_sim_tx_queue *sender = &sim->tx[place->queue];
    if (place->offset == RX_RDH && (rx ? receiver->enabled : sender->enabled))
        return rx ? receiver->head : sender->head;
    if (place->offset == RX_RDT)
        return sim->card->tails[reg / 4];
    if (place->offset != RX_RXDCTL)
        return value;
    if (rx) {
        if (receiver->wait && --receiver->wait == 0)
            rl_sim_rx_done(sim, place->queue);
        return (value & ~XDCTL_ENABLE) | (receiver->enabled ? XDCTL_ENABLE : 0);
    }
    if (sender->wait && --sender->wait == 0)
        rl_sim_tx_done(sim, place->queue);
    return (value & ~XDCTL_ENABLE) | (sender->enabled ? XDCTL_ENABLE : 0);
}

static bool exists(struct rl_sim *sim, uint32_t reg, const char *access)
{
    if (reg < RL_SIM_BAR_BYTES && reg % 4 == 0 && sim->map[rl_sim_canonical(reg) / 4] != 0)
        return true;
    rl_sim_fault(sim, RL_SIM_FAULT_REGISTER, 0, reg, "%s of 0x%05x: there is no such register",
                 access, reg);
    return false;
}

uint32_t rl_sim_read(struct rl_sim *sim, uint32_t reg)
{
    struct place place;
    if (!exists(sim, reg, "read"))
        return 0;
    rl_sim_publish(sim);
    reg = rl_sim_canonical(reg);
    uint32_t *value = &sim->registers[reg / 4];
    uint32_t was = *value;
    if (rl_sim_register(sim, reg)->mode & CLEARS) {
        *value = 0;
        return was;
    }
    switch (reg) {
    case CTRL:
        return read_ctrl(sim);
    case STATUS:
        rl_sim_poll(sim, &sim->master_wait);
        return (sim->master_off ? 0 : STATUS_MASTER_ENABLED) | (sim->link_up ? STATUS_LINK_UP : 0);
    case EICR:
        return rl_sim_read_causes(sim);
    case EICS:
        return sim->registers[EICR / 4];
    case EIMC:
        return 0;
    case RDRXCTL:
        rl_sim_poll(sim, &sim->dma_wait);
        return (was & ~RDRXCTL_DMAIDONE) | (sim->dma_wait ? 0 : RDRXCTL_DMAIDONE);
    case EEC:
        rl_sim_poll(sim, &sim->eeprom_wait);
        return (was & ~EEC_AUTO_RD) | (sim->eeprom_wait ? 0 : EEC_AUTO_RD);
    case LINKS:
        rl_sim_poll(sim, &sim->link_wait);
        return sim->link_up ? LINKS_UP_10G | (sim->backplane ? LINKS_NEGOTIATED : 0) : 0;
    case ANLP1:
        return sim->backplane ? ANLP1_DONE : 0;
    case SECRXSTAT:
        rl_sim_poll(sim, &sim->security_wait);
        return (sim->registers[SECRXCTRL / 4] & SECRXCTRL_RX_DIS) && !sim->security_wait
                   ? SECRXSTAT_READY
                   : 0;
    case SWSM: /* a semaphore: a read acquires it */
        *value |= SWSM_SMBI;
        return was;
    default:
        break;
    }
    if (of_rx_queue(reg, &place))
        return read_queue(sim, reg, &place, true);
    if (of_tx_queue(reg, &place))
        return read_queue(sim, reg, &place, false);
    return was;
}

static void write_ctrl(struct rl_sim *sim, uint32_t value)
{
    bool busy = sim->rx_count + sim->tx_count != 0;
    sim->registers[CTRL / 4] = value;
    if (value & (CTRL_RST | CTRL_LRST)) {
        if (sim->registers[EIMS / 4] != 0)
            rl_sim_lint(sim, RL_SIM_FAULT_INTERRUPT, 0, CTRL,
                        "reset with interrupts unmasked (EIMS 0x%08x): write EIMC first",
                        sim->registers[EIMS / 4]);
        if (busy && !sim->master_off)
            rl_sim_lint(sim, RL_SIM_FAULT_MASTER, 0, CTRL,
                        "reset with queues enabled and without master disable: DMA may be under "
                        "way (set CTRL bit 2, then wait for STATUS bit 19)");
        rl_sim_reset(sim, value & CTRL_RST, value & CTRL_LRST);
        sim->registers[CTRL / 4] = value & (CTRL_RST | CTRL_LRST);
        return;
    }
    if (value & CTRL_MASTER_DISABLE) {
        if (!sim->master_off && !sim->master_wait) {
            sim->master_wait = RL_SIM_WAIT;
            sim->waiting = 1;
        }
    } else {
        sim->master_off = false;
        sim->master_wait = 0;
    }
    sim->changed = true;
}

/* Whether frames come from the wire now. */
static bool is_busy(const struct rl_sim *sim)
{
    return sim->live.pending || (sim->order_length != 0 && sim->left != 0);
}

/* RXEN should change only while the security path is stopped: if frames come while it is switched
 * on, receive DMA hangs until the next reset (erratum). */
static void write_rxctrl(struct rl_sim *sim, uint32_t value)
{
    bool was = sim->registers[RXCTRL / 4] & RXCTRL_RXEN;
    bool stopped = (sim->registers[SECRXCTRL / 4] & SECRXCTRL_RX_DIS) && !sim->security_wait;
    bool on = !was && (value & RXCTRL_RXEN) && !stopped;
    if (on && is_busy(sim)) {
        sim->receive_hung = true;
        rl_sim_fault(sim, RL_SIM_FAULT_RECEIVE_HANG, 0, RXCTRL,
                     "RXCTRL.RXEN switched on while the security path ran and frames came: receive "
                     "DMA hangs until the next reset (set SECRXCTRL bit 1, then wait for SECRXSTAT "
                     "bit 0)");
    } else if (on || (was && !(value & RXCTRL_RXEN) && !stopped)) {
        rl_sim_lint(sim, RL_SIM_FAULT_RECEIVE_HANG, 0, RXCTRL,
                    "RXCTRL.RXEN changed while the security path ran (set SECRXCTRL bit 1, then "
                    "wait for SECRXSTAT bit 0)");
    }
    if (!was && (value & RXCTRL_RXEN) && sim->registers[EIMS / 4] != 0) {
        uint32_t valid = sim->registers[IVAR_MISC / 4];
        for (uint32_t i = 0; i < 64; i++)
            valid |= sim->registers[IVAR / 4 + i];
        if (!(valid & IVAR_VALID))
            rl_sim_lint(sim, RL_SIM_FAULT_INTERRUPT, 0, EIMS,
                        "receiving with interrupts unmasked (EIMS 0x%08x) and no IVAR entry "
                        "valid: write EIMC again after a reset",
                        sim->registers[EIMS / 4]);
    }
    sim->registers[RXCTRL / 4] = value;
    sim->changed = true;
}

static void write_rx_queue(struct rl_sim *sim, uint32_t reg, const struct place *place,
                           uint32_t value)
{
    struct rl_sim_rx_queue *queue = &sim->rx[place->queue];
    uint32_t *stored = &sim->registers[reg / 4];
    bool busy = queue->enabled || queue->wait;
    switch (place->offset) {
    case RX_RXDCTL:
        if (queue->enabled && (sim->broken & RL_SIM_BROKEN_STOP))
            value |= XDCTL_ENABLE;
        *stored = value;
        queue->strip = (value & RXDCTL_VME) != 0;
        if ((bool)(value & XDCTL_ENABLE) != queue->wanted)
            rl_sim_rx_enable(sim, place->queue, value & XDCTL_ENABLE);
        sim->changed = true;
        return;
    case RX_RDT:
        if (queue->enabled) {
            *queue->tail_register = value; /* the next step reads it */
            return;
        }
        rl_sim_idle_tail(sim, reg, place->queue, value, "RXDCTL");
        return;
    case RX_RSCCTL:
        if (value & RSCCTL_RSCEN)
            rl_sim_fault(sim, RL_SIM_FAULT_UNMODELLED, place->queue, reg,
                         "RSCCTL[%u].RSCEN: the model does not support receive-side coalescing",
                         place->queue);
        *stored = value & ~RSCCTL_RSCEN;
        return;
    case RX_DCA_RXCTRL:
        *stored = value;
        sim->changed = true;
        return;
    case RX_SRRCTL:
        if (busy)
            rl_sim_lint(sim, RL_SIM_FAULT_QUEUE, place->queue, reg,
                        "SRRCTL[%u] written while the queue is enabled", place->queue);
        *stored = value;
        queue->drop = (value & SRRCTL_DROP_EN) != 0;
        return;
    default:
        if (busy) {
            rl_sim_fault(sim, RL_SIM_FAULT_QUEUE, place->queue, reg,
                         "%s[%u] written while the queue is enabled: ignored",
                         rl_sim_register(sim, reg)->name, place->queue);
            return;
        }
        *stored = rl_sim_aligned(sim, reg, place->queue, value);
    }
}

static void write_tx_queue(struct rl_sim *sim, uint32_t reg, const struct place *place,
                           uint32_t value)
{
    struct rl_sim_tx_queue *queue = &sim->tx[place->queue];
    uint32_t *stored = &sim->registers[reg / 4];
    switch (place->offset) {
    case TX_TXDCTL:
        *stored = value;
        queue->threshold = TXDCTL_WTHRESH(value);
        if ((bool)(value & XDCTL_ENABLE) != queue->wanted)
            rl_sim_tx_enable(sim, place->queue, value & XDCTL_ENABLE);
        return;
    case TX_TDT:
        if (queue->enabled) {
            *queue->tail_register = value;
            return;
        }
        rl_sim_idle_tail(sim, reg, place->queue, value, "TXDCTL");
        return;
    case TX_TDWBAL:
        if (value & 1)
            rl_sim_fault(sim, RL_SIM_FAULT_UNMODELLED, place->queue, reg,
                         "TDWBAL[%u]: the model does not support head write-back", place->queue);
        *stored = value & ~1u;
        return;
    case TX_DCA_TXCTRL:
        *stored = value;
        return;
    default:
        if (queue->enabled || queue->wait) {
            rl_sim_fault(sim, RL_SIM_FAULT_QUEUE, place->queue, reg,
                         "%s[%u] written while the queue is enabled: ignored",
                         rl_sim_register(sim, reg)->name, place->queue);
            return;
        }
        *stored = rl_sim_aligned(sim, reg, place->queue, value);
    }
}

/* Whether the card accepts this write now. */
static bool writable(struct rl_sim *sim, uint32_t reg, uint32_t value)
{
    const struct rl_sim_register *entry = rl_sim_register(sim, reg);
    if (sim->reset_wait) {
        rl_sim_fault(sim, RL_SIM_FAULT_RESET, 0, reg,
                     "%s (0x%05x) = 0x%x while a reset is under way: ignored (CTRL clears it)",
                     entry->name, reg, value);
        return false;
    }
    if (((entry->mode & EEPROM) && sim->eeprom_wait) || ((entry->mode & DMA) && sim->dma_wait)) {
        rl_sim_fault(sim, RL_SIM_FAULT_INITIALISING, 0, reg,
                     "%s (0x%05x) = 0x%x before %s: overwritten", entry->name, reg, value,
                     (entry->mode & EEPROM) ? "EEC bit 9, EEPROM auto-read done"
                                            : "RDRXCTL bit 3, DMA initialisation done");
        return false;
    }
    if (entry->mode & (READ_ONLY | CLEARS)) {
        rl_sim_fault(sim, RL_SIM_FAULT_REGISTER, 0, reg, "%s (0x%05x) = 0x%x: it is read-only",
                     entry->name, reg, value);
        return false;
    }
    bool buffers = reg - TXPBSIZE < 0x20 || reg == MTQC;
    if (buffers && !(sim->registers[RTTDCS / 4] & RTTDCS_ARBDIS))
        rl_sim_lint(sim, RL_SIM_FAULT_ARBITER, 0, reg,
                    "%s (0x%05x) = 0x%x while the arbiter runs (RTTDCS bit 6)", entry->name, reg,
                    value);
    if ((reg - RXPBSIZE < 0x20 || reg == RDRXCTL) && (sim->registers[RXCTRL / 4] & RXCTRL_RXEN)) {
        rl_sim_fault(sim, RL_SIM_FAULT_RECEIVE, 0, reg,
                     "%s (0x%05x) = 0x%x while receiving: ignored (RXCTRL.RXEN)", entry->name, reg,
                     value);
        return false;
    }
    return true;
}

void rl_sim_write(struct rl_sim *sim, uint32_t reg, uint32_t value)
{
    struct place place;
    if (!exists(sim, reg, "write"))
        return;
    rl_sim_publish(sim);
    reg = rl_sim_canonical(reg);
    if (!writable(sim, reg, value))
        return;
    uint32_t *stored = &sim->registers[reg / 4];
    uint8_t mode = rl_sim_register(sim, reg)->mode;
    if (mode & FRAMES)
        sim->epoch++;
    if (mode & SET_UP)
        sim->changed = true;
    if (reg - EICR < 0x300 && rl_sim_write_interrupt(sim, reg, value))
        return;
    if (reg - IVAR < 0x100)
        sim->interrupts.on = true;
    switch (reg) {
    case CTRL:
        write_ctrl(sim, value);
        return;
    case RXCTRL:
        write_rxctrl(sim, value);
        return;
    case SECRXCTRL:
        if ((value & SECRXCTRL_RX_DIS) && !(*stored & SECRXCTRL_RX_DIS))
            sim->security_wait = RL_SIM_WAIT;
        sim->waiting = 1;
        *stored = value;
        return;
    case AUTOC:
        rl_sim_write_autoc(sim, value);
        return;
    case MSCA: /* no PHY is on the management bus */
        *stored = value & ~MSCA_BUSY;
        sim->registers[MSRWD / 4] = 0xFFFFFFFF;
        return;
    case EEC:
        *stored = (value & ~EEC_GRANT) | EEC_PRESENT | (value & EEC_REQUEST ? EEC_GRANT : 0);
        return;
    case EERD:
        if (value & EERD_START)
            *stored = EERD_DONE | (value & 0xFFFC) |
                      (uint32_t)rl_sim_eeprom(sim, value >> 2 & 0x3FFF) << 16;
        return;
    case FDIRCTRL:
        *stored = value | FDIRCTRL_DONE;
        return;
    case MRQC:
        if ((value & MRQC_MRQE) > MRQC_RSS)
            rl_sim_fault(sim, RL_SIM_FAULT_UNMODELLED, 0, reg,
                         "MRQC = 0x%x: the model supports modes 0 and 1 (RSS) only", value);
        *stored = value;
        return;
    default:
        break;
    }
    if (reg - RAL < 256 * 4 && reg % 8 == 4)
        value &= RAH_KEPT;
    if (of_rx_queue(reg, &place))
        write_rx_queue(sim, reg, &place, value);
    else if (of_tx_queue(reg, &place))
        write_tx_queue(sim, reg, &place, value);
    else
        *stored = value;
}

volatile uint32_t *rl_sim_tail(struct rl_sim *sim, uint32_t reg)
{
    struct place place;
    bool queue = of_rx_queue(reg, &place) || of_tx_queue(reg, &place);
    return queue && place.offset == RX_RDT ? &sim->card->tails[reg / 4] : NULL;
}
