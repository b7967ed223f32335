/* Reset, link and set-up of the card, and the checks of their order. */
#include "registers.h"

void rl_sim_reset(struct rl_sim *sim, bool device, bool link)
{
    if (link) {
        sim->link_up = false;
        sim->link_wait = 0;
    }
    if (device) {
        rl_sim_queues_off(sim);
        rl_sim_registers_reset(sim);
        sim->receive_hung = false;
        sim->security_wait = 0;
        rl_sim_held_drop(sim);
        sim->eeprom_wait = RL_SIM_WAIT;
        sim->dma_wait = RL_SIM_WAIT;
    }
    sim->reset_wait = RL_SIM_WAIT;
    sim->waiting = 1;
    sim->master_off = false;
    sim->master_wait = 0;
    sim->epoch++;
    sim->changed = true;
}

/* The operation that `wait` counts down is done. */
static void finish_operation(struct rl_sim *sim, const uint8_t *wait)
{
    uint32_t *registers = sim->registers;
    if (wait == &sim->reset_wait)
        registers[CTRL / 4] &= ~(CTRL_RST | CTRL_LRST);
    else if (wait == &sim->eeprom_wait) {
        const uint8_t *mac = sim->mac;
        registers[RAL / 4] =
            mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 | (uint32_t)mac[3] << 24;
        if (sim->backplane)
            registers[AUTOC / 4] |= AUTOC_BACKPLANE;
        registers[RAL / 4 + 1] = mac[4] | (uint32_t)mac[5] << 8 | RAH_AV;
        sim->epoch++;
    } else if (wait == &sim->master_wait)
        sim->master_off = true;
    else if (wait == &sim->link_wait) {
        sim->link_up = true;
        rl_sim_cause_other(sim, EICR_LINK);
    }
    sim->changed = true;
}

void rl_sim_poll(struct rl_sim *sim, uint8_t *wait)
{
    /* EEPROM auto-read and DMA initialisation only start when the reset is over. */
    if (*wait == 0 || (sim->reset_wait != 0 && wait != &sim->reset_wait))
        return;
    if (--*wait == 0)
        finish_operation(sim, wait);
}

void rl_sim_poll_all(struct rl_sim *sim)
{
    uint8_t *waits[] = {&sim->reset_wait,  &sim->eeprom_wait, &sim->dma_wait,
                        &sim->master_wait, &sim->link_wait,   &sim->security_wait};
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        rl_sim_poll(sim, waits[i]);
        waiting += *waits[i];
    }
    for (uint32_t i = 0; i < RL_SIM_QUEUES; i++) {
        if (sim->rx[i].wait && --sim->rx[i].wait == 0)
            rl_sim_rx_done(sim, i);
        if (sim->tx[i].wait && --sim->tx[i].wait == 0)
            rl_sim_tx_done(sim, i);
        waiting += sim->rx[i].wait + sim->tx[i].wait;
    }
    sim->waiting = waiting;
}

void rl_sim_power_on(struct rl_sim *sim)
{
    rl_sim_registers_map(sim);
    rl_sim_reset(sim, true, true);
    while (sim->waiting)
        rl_sim_poll_all(sim);
}

void rl_sim_restart_link(struct rl_sim *sim)
{
    const uint32_t *registers = sim->registers;
    bool sfi = AUTOC_LMS(registers[AUTOC / 4]) == AUTOC_LMS_SERIAL_10G &&
               AUTOC2_PMA(registers[AUTOC2 / 4]) == AUTOC2_PMA_SFI;
    bool lit = !(registers[ESDP / 4] & ESDP_DARK);
    bool negotiates = AUTOC_LMS(registers[AUTOC / 4]) >= AUTOC_LMS_KX4;
    bool able = sim->backplane ? negotiates : sfi && lit;
    able = able && !(sim->broken & RL_SIM_BROKEN_LINK);
    if (sim->link_up)
        rl_sim_cause_other(sim, EICR_LINK);
    sim->link_up = false;
    sim->link_wait = able ? RL_SIM_WAIT : 0;
    sim->waiting = 1;
    sim->changed = true;
}

void rl_sim_write_autoc(struct rl_sim *sim, uint32_t value)
{
    uint32_t *stored = &sim->registers[AUTOC / 4];
    bool was_forced = *stored & AUTOC_FORCE_UP;
    *stored = value & ~AUTOC_RESTART;
    if (value & AUTOC_FORCE_UP) {
        sim->link_up = true;
        sim->link_wait = 0;
        sim->changed = true;
    } else if (was_forced || (value & AUTOC_RESTART)) {
        rl_sim_restart_link(sim);
    }
}

/* Copy the settings for the packet paths from the registers, so that they are read
 * after a change and not for every frame. */
void rl_sim_refresh(struct rl_sim *sim)
{
    const uint32_t *registers = sim->registers;
    uint32_t hlreg0 = registers[HLREG0 / 4];
    bool bus = sim->bus_master && !(registers[CTRL / 4] & CTRL_MASTER_DISABLE) &&
               sim->reset_wait == 0 && sim->dma_wait == 0;
    sim->receiving = bus && sim->link_up && !sim->receive_hung &&
                     (registers[RXCTRL / 4] & RXCTRL_RXEN) &&
                     !(registers[SECRXCTRL / 4] & SECRXCTRL_RX_DIS);
    sim->transmitting = bus && sim->link_up && (registers[DMATXCTL / 4] & DMATXCTL_TE) &&
                        !(registers[RTTDCS / 4] & RTTDCS_ARBDIS);
    sim->loopback = hlreg0 & HLREG0_LPBK;
    sim->vlan_type = registers[DMATXCTL / 4] >> 16;
    bool strip = (hlreg0 & HLREG0_RXCRCSTRP) && (registers[RDRXCTL / 4] & RDRXCTL_CRC_STRIP);
    sim->crc_bytes = strip ? 0 : RL_SIM_CRC;
    uint32_t longest = (hlreg0 & HLREG0_JUMBOEN) ? registers[MAXFRS / 4] >> 16 : 1518;
    longest = longest < RL_SIM_LENGTH_MAX ? longest : RL_SIM_LENGTH_MAX;
    uint32_t frame_max = longest > RL_SIM_MIN + RL_SIM_CRC ? longest - RL_SIM_CRC : RL_SIM_MIN;
    if (frame_max != sim->frame_max)
        sim->epoch++;
    sim->frame_max = frame_max;
    sim->held_room = (uint64_t)PBSIZE_KIB(registers[RXPBSIZE / 4]) << 10;
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        struct rl_sim_rx_queue *queue = &sim->rx[sim->rx_active[i]];
        queue->whole_bytes = strip ? queue->buffer_bytes : 0;
    }
    sim->receive_unchecked = true;
    sim->transmit_unchecked = true;
    sim->changed = false;
}

static void check(struct rl_sim *sim, bool right, uint32_t kind, uint32_t reg, const char *what)
{
    if (!right)
        rl_sim_lint(sim, kind, 0, reg, "%s (0x%05x) is 0x%x: %s", rl_sim_register(sim, reg)->name,
                    reg, sim->registers[reg / 4], what);
}

static uint32_t sum_of_sizes(const struct rl_sim *sim, uint32_t reg)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 8; i++)
        sum += PBSIZE_KIB(sim->registers[reg / 4 + i]);
    return sum;
}

/* Faults for settings with which the card would receive wrongly or not at all. They
 * are checked when frames are about to arrive, since drivers may write the registers
 * in any order. */
void rl_sim_check_receive(struct rl_sim *sim)
{
    const uint32_t *registers = sim->registers;
    uint32_t rdrxctl = registers[RDRXCTL / 4];
    sim->receive_unchecked = false;
    check(sim, (registers[CTRL_EXT / 4] & CTRL_EXT_NS_DIS), RL_SIM_FAULT_RECEIVE, CTRL_EXT,
          "bit 16, no-snoop disable, must be 1 to receive");
    check(sim, (rdrxctl & RDRXCTL_MUST) == RDRXCTL_MUST, RL_SIM_FAULT_RECEIVE, RDRXCTL,
          "bits 25 and 26 must be 1");
    check(sim, (rdrxctl & RDRXCTL_RSCFRSTSIZE) == 0, RL_SIM_FAULT_RECEIVE, RDRXCTL,
          "bits 21:17 must be 0");
    check(sim, !(rdrxctl & RDRXCTL_CRC_STRIP) == !(registers[HLREG0 / 4] & HLREG0_RXCRCSTRP),
          RL_SIM_FAULT_RECEIVE, RDRXCTL,
          "bit 1 and HLREG0 bit 1, both of which strip the CRC, must be the same");
    check(sim, sum_of_sizes(sim, RXPBSIZE) <= 512 && sim->held_room != 0, RL_SIM_FAULT_RECEIVE,
          RXPBSIZE, "the packet buffer has 512 KiB in all, and buffer 0 must have some");
    check(sim, (registers[VLNCTRL / 4] & 0xFFFF) == 0x8100, RL_SIM_FAULT_UNMODELLED, VLNCTRL,
          "the model supports VLAN tags of type 0x8100 only");
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        uint32_t reg = rl_sim_rx_register(sim->rx_active[i], RX_DCA_RXCTRL);
        check(sim, !(registers[reg / 4] & DCA_RXCTRL_BIT12), RL_SIM_FAULT_RECEIVE, reg,
              "bit 12 must be 0");
    }
}

void rl_sim_check_transmit(struct rl_sim *sim)
{
    const uint32_t *registers = sim->registers;
    sim->transmit_unchecked = false;
    check(sim, (registers[DTXMXSZRQ / 4] & 0xFFF) == DTXMXSZRQ_NO_DCB, RL_SIM_FAULT_TRANSMIT,
          DTXMXSZRQ, "without DCB it must be 0xfff");
    check(sim, (registers[HLREG0 / 4] & HLREG0_TXCRCEN), RL_SIM_FAULT_TRANSMIT, HLREG0,
          "bit 0 must be 1, or frames are sent without CRC");
    check(sim, sum_of_sizes(sim, TXPBSIZE) <= 160, RL_SIM_FAULT_TRANSMIT, TXPBSIZE,
          "the packet buffer has 160 KiB in all");
    check(sim, registers[MTQC / 4] == 0, RL_SIM_FAULT_UNMODELLED, MTQC,
          "the model does not support DCB and pools");
}

/* The card as another driver left it: it receives into memory outside all windows, and
 * its laser is off, as kernel drivers leave it. */
void rl_sim_leave_running(struct rl_sim *sim)
{
    uint32_t *registers = sim->registers;
    for (uint32_t reg = 0; reg < RL_SIM_BAR_BYTES; reg += 4)
        if (rl_sim_register(sim, reg)->mode & CLEARS)
            registers[reg / 4] = 82599;
    registers[EIMS / 4] = 0x00100001;
    registers[EICR / 4] = 0x00100001;
    registers[ESDP / 4] = ESDP_DARK;
    registers[FCTRL / 4] = FCTRL_BAM | FCTRL_UPE | FCTRL_MPE;
    registers[AUTOC / 4] = AUTOC_LMS_SERIAL_10G << 13;
    registers[AUTOC2 / 4] = AUTOC2_PMA_SFI << 16;
    sim->link_up = true;
    registers[(RX_BANK + RX_RDBAL) / 4] = 0x6f6d0000;
    registers[(RX_BANK + RX_RDLEN) / 4] = 128 * 16;
    registers[(RX_BANK + RX_SRRCTL) / 4] = 2 | 1u << 25;
    registers[(RX_BANK + RX_RXDCTL) / 4] = XDCTL_ENABLE;
    rl_sim_rx_enable(sim, 0, true);
    rl_sim_rx_done(sim, 0);
    sim->card->tails[(RX_BANK + RX_RDT) / 4] = 127;
    registers[RXCTRL / 4] = RXCTRL_RXEN;
    sim->changed = true;
}
