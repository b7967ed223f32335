/* Queues are enabled and disabled by a handshake: a request is refused, or takes
 * effect later; only then does ENABLE read back. */
#include "registers.h"

static uint64_t base_of(const struct rl_sim *sim, uint32_t reg)
{
    return sim->registers[reg / 4] | (uint64_t)sim->registers[reg / 4 + 1] << 32;
}

/* A problem of a ring, or NULL. Base, length and head have the same offsets in both
 * directions. */
static const char *ring_trouble(const struct rl_sim *sim, uint32_t bank)
{
    uint32_t bytes = sim->registers[(bank + RX_RDLEN) / 4];
    if (bytes == 0 || bytes > 0x80000)
        return "its ring has 0, or more than 0x80000 bytes";
    if (sim->registers[(bank + RX_RDH) / 4] >= bytes / 16)
        return "its head is beyond its ring";
    return NULL;
}

/* The card keeps the bits of a ring's base and length with which both are multiples of 128. */
uint32_t rl_sim_aligned(struct rl_sim *sim, uint32_t reg, uint32_t queue, uint32_t value)
{
    uint32_t offset = reg % 0x40;
    uint32_t kept = value;
    if (offset == RX_RDLEN)
        kept &= RING_BYTES;
    else if (offset == RX_RDBAL)
        kept &= ~127u;
    if (kept != value)
        rl_sim_lint(sim, RL_SIM_FAULT_QUEUE, queue, reg,
                    "%s[%u] = 0x%x: the card keeps 0x%x of it; a ring begins at a multiple of 128 "
                    "and has 128 to 0x80000 bytes",
                    rl_sim_register(sim, reg)->name, queue, value, kept);
    return kept;
}

/* A tail that is written before its queue is enabled: it can be read, and has no effect. */
void rl_sim_idle_tail(struct rl_sim *sim, uint32_t reg, uint32_t queue, uint32_t value,
                      const char *enable)
{
    uint32_t head = sim->registers[reg / 4 - (RX_RDT - RX_RDH) / 4];
    sim->card->tails[reg / 4] = value & 0xFFFF;
    if (value != head)
        rl_sim_lint(sim, RL_SIM_FAULT_TAIL, queue, reg,
                    "%s[%u] = %u before %s.ENABLE reads back: ignored",
                    rl_sim_register(sim, reg)->name, queue, value, enable);
}

static const char *buffer_trouble(uint32_t srrctl)
{
    if (SRRCTL_DESCTYPE(srrctl) != 1)
        return "SRRCTL.DESCTYPE is not 1, advanced descriptors with one buffer";
    if ((srrctl & SRRCTL_BSIZEPACKET) == 0 || (srrctl & SRRCTL_BSIZEPACKET) > 16)
        return "SRRCTL.BSIZEPACKET is not 1 to 16 KiB";
    return NULL;
}

void rl_sim_rx_enable(struct rl_sim *sim, uint32_t queue, bool on)
{
    struct rl_sim_rx_queue *receiver = &sim->rx[queue];
    uint32_t bank = rl_sim_rx_register(queue, 0);
    if (on) {
        const char *trouble = ring_trouble(sim, bank);
        if (trouble == NULL)
            trouble = buffer_trouble(sim->registers[(bank + RX_SRRCTL) / 4]);
        if (trouble != NULL) {
            rl_sim_fault(sim, RL_SIM_FAULT_QUEUE, queue, bank + RX_RXDCTL,
                         "receive queue %u cannot be enabled: %s", queue, trouble);
            return;
        }
    }
    receiver->wanted = on;
    receiver->wait = RL_SIM_WAIT;
    sim->waiting = 1;
}

void rl_sim_tx_enable(struct rl_sim *sim, uint32_t queue, bool on)
{
    struct rl_sim_tx_queue *sender = &sim->tx[queue];
    uint32_t bank = rl_sim_tx_register(queue, 0);
    if (on) {
        const char *trouble = ring_trouble(sim, bank);
        if (!(sim->registers[DMATXCTL / 4] & DMATXCTL_TE))
            trouble = "DMATXCTL.TE is not set";
        else if (queue >= RL_SIM_TX_QUEUES_MAX)
            trouble = "there are 64 transmit queues without DCB and pools";
        if (trouble != NULL) {
            rl_sim_fault(sim, RL_SIM_FAULT_QUEUE, queue, bank + TX_TXDCTL,
                         "transmit queue %u cannot be enabled: %s", queue, trouble);
            return;
        }
    }
    sender->wanted = on;
    sender->wait = RL_SIM_WAIT;
    sim->waiting = 1;
}

static void list_active(struct rl_sim *sim)
{
    rl_sim_publish(sim); /* counts of the queues before the change */
    sim->rx_count = sim->tx_count = 0;
    for (uint32_t i = 0; i < RL_SIM_QUEUES; i++) {
        if (sim->rx[i].enabled)
            sim->rx_active[sim->rx_count++] = (uint8_t)i;
        if (sim->tx[i].enabled)
            sim->tx_active[sim->tx_count++] = (uint8_t)i;
    }
    sim->changed = true;
}

/* A tail written before its queue was enabled is a fault: the card ignores it. */
static void check_tail(struct rl_sim *sim, uint32_t queue, uint32_t bank, const char *name)
{
    uint32_t *tail = &sim->card->tails[(bank + RX_RDT) / 4];
    uint32_t head = sim->registers[(bank + RX_RDH) / 4];
    if (*tail == head)
        return;
    rl_sim_fault(sim, RL_SIM_FAULT_TAIL, queue, bank + RX_RDT,
                 "%s[%u] was %u, not the head %u, when the queue came on: ignored", name, queue,
                 *tail, head);
    *tail = head;
}

void rl_sim_rx_done(struct rl_sim *sim, uint32_t queue)
{
    struct rl_sim_rx_queue *receiver = &sim->rx[queue];
    uint32_t bank = rl_sim_rx_register(queue, 0);
    if (receiver->wanted && !receiver->enabled) {
        uint32_t srrctl = sim->registers[(bank + RX_SRRCTL) / 4];
        uint32_t bytes = sim->registers[(bank + RX_RDLEN) / 4];
        receiver->tail_register = &sim->card->tails[(bank + RX_RDT) / 4];
        receiver->ring = (uint64_t *)(void *)rl_sim_reach(sim, base_of(sim, bank), bytes);
        receiver->size = bytes / 16;
        receiver->head = receiver->tail = sim->registers[(bank + RX_RDH) / 4];
        receiver->buffer_bytes = (srrctl & SRRCTL_BSIZEPACKET) << 10;
        receiver->drop = (srrctl & SRRCTL_DROP_EN) != 0;
        receiver->halted = 0;
        check_tail(sim, queue, bank, "RDT");
    } else if (!receiver->wanted && receiver->enabled) {
        sim->registers[(bank + RX_RDH) / 4] = receiver->head;
        receiver->tail = receiver->head;
    }
    receiver->enabled = receiver->wanted;
    receiver->wait = 0;
    list_active(sim);
}

void rl_sim_tx_done(struct rl_sim *sim, uint32_t queue)
{
    struct rl_sim_tx_queue *sender = &sim->tx[queue];
    uint32_t bank = rl_sim_tx_register(queue, 0);
    if (sender->wanted && !sender->enabled) {
        uint32_t bytes = sim->registers[(bank + TX_TDLEN) / 4];
        sender->tail_register = &sim->card->tails[(bank + TX_TDT) / 4];
        sender->ring = (uint64_t *)(void *)rl_sim_reach(sim, base_of(sim, bank), bytes);
        sender->size = bytes / 16;
        sender->head = sim->registers[(bank + TX_TDH) / 4];
        sender->threshold = TXDCTL_WTHRESH(sim->registers[(bank + TX_TXDCTL) / 4]);
        sender->unwritten = 0;
        sender->halted = 0;
        sender->segment_count = 0;
        memset(sender->contexts, 0, sizeof sender->contexts);
        check_tail(sim, queue, bank, "TDT");
    } else if (!sender->wanted && sender->enabled) {
        sim->registers[(bank + TX_TDH) / 4] = sender->head;
    }
    sender->enabled = sender->wanted;
    sender->wait = 0;
    list_active(sim);
}

void rl_sim_queues_off(struct rl_sim *sim)
{
    for (uint32_t i = 0; i < RL_SIM_QUEUES; i++) {
        sim->rx[i].enabled = sim->rx[i].wanted = sim->rx[i].wait = sim->rx[i].halted = 0;
        sim->rx[i].tail = sim->rx[i].head;
        sim->tx[i].enabled = sim->tx[i].wanted = sim->tx[i].wait = 0;
    }
    list_active(sim);
}
