/* Add the counts of steps to the statistics registers (packets in 32 bits that wrap,
 * octets in two registers) and to the wire's counters. This is not done at every
 * step: it would cost a nanosecond per packet. */
#include "registers.h"

static void add(struct rl_sim *sim, uint32_t reg, uint64_t number)
{
    sim->registers[reg / 4] += (uint32_t)number;
}

static void add_octets(struct rl_sim *sim, uint32_t reg, uint64_t octets)
{
    uint64_t sum = sim->registers[reg / 4] + (octets & 0xFFFFFFFF);
    sim->registers[reg / 4] = (uint32_t)sum;
    sim->registers[reg / 4 + 1] += (uint32_t)(sum >> 32) + (uint32_t)(octets >> 32);
}

/* The number of the counter for a queue in a map, RQSMR or TQSM. */
static uint32_t counter_of(const struct rl_sim *sim, uint32_t map, uint32_t queue)
{
    return sim->registers[map / 4 + queue / 4] >> queue % 4 * 8 & 0xF;
}

static void publish_rx_queues(struct rl_sim *sim)
{
    struct rl_sim_wire *wire = &sim->card->wire;
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        uint32_t number = sim->rx_active[i];
        struct rl_sim_rx_queue *queue = &sim->rx[number];
        uint32_t counter = counter_of(sim, RQSMR, number);
        uint64_t frames = RL_SIM_FRAMES(queue->count);
        uint64_t bytes = RL_SIM_BYTES(queue->count);
        add(sim, QPRC + 0x40 * counter, frames);
        add(sim, QPRDC + 0x40 * counter, queue->missed);
        add_octets(sim, QBRC_L + 0x40 * counter, bytes);
        sim->tally.bytes += (int64_t)bytes;
        wire->queue_delivered[number] += frames;
        wire->delivered += frames;
        wire->delivered_bytes += bytes;
        wire->dropped_no_descriptor += queue->missed;
        queue->count = queue->missed = 0;
    }
}

static void publish_received(struct rl_sim *sim)
{
    struct rl_sim_wire *wire = &sim->card->wire;
    const struct rl_sim_tally *tally = &sim->tally;
    uint64_t good = 0;
    for (uint32_t i = 0; i < 24; i++) {
        uint64_t frames = tally->classes[i];
        if (frames == 0)
            continue;
        good += frames;
        add(sim, PRC64 + 4 * (i % 8), frames);
        if (i >= 8)
            add(sim, i < 16 ? MPRC : BPRC, frames);
    }
    uint64_t bad = tally->oversize + tally->undersize;
    uint64_t bytes = (uint64_t)tally->bytes;
    uint64_t all = good + bad + tally->filtered;
    uint64_t all_bytes = bytes + tally->bad_bytes + tally->filtered_bytes;
    add(sim, GPRC, good);
    add_octets(sim, GORCL, bytes + RL_SIM_CRC * good);
    add(sim, TPR, all);
    add_octets(sim, TORL, all_bytes + RL_SIM_CRC * all);
    add(sim, ROC, tally->oversize);
    add(sim, RUC, tally->undersize);
    add(sim, MPC, tally->no_space);
    wire->offered += all + tally->no_space + tally->not_receiving;
    wire->offered_bytes += all_bytes + tally->not_receiving_bytes;
    wire->dropped_filtered += tally->filtered;
    wire->dropped_oversize += tally->oversize;
    wire->dropped_undersize += tally->undersize;
    wire->dropped_no_space += tally->no_space;
    wire->dropped_disabled += tally->disabled + tally->not_receiving;
    wire->dropped_dma += tally->dma;
    wire->held = sim->held_count;
    wire->finished = sim->order_length != 0 && sim->left == 0 && sim->held_count == 0;
}

static void publish_sent(struct rl_sim *sim)
{
    struct rl_sim_wire *wire = &sim->card->wire;
    for (uint32_t i = 0; i < sim->tx_count; i++) {
        uint32_t number = sim->tx_active[i];
        struct rl_sim_tx_queue *queue = &sim->tx[number];
        uint32_t counter = counter_of(sim, TQSM, number);
        uint64_t packets = RL_SIM_FRAMES(queue->count);
        uint64_t bytes = RL_SIM_BYTES(queue->count);
        add(sim, QPTC + 4 * counter, packets);
        add_octets(sim, QBTC_L + 8 * counter, bytes);
        add(sim, GPTC, packets);
        add(sim, TPT, packets);
        add_octets(sim, GOTCL, bytes + RL_SIM_CRC * packets);
        wire->transmitted += packets;
        wire->transmitted_bytes += bytes;
        wire->queue_transmitted[number] += packets;
        queue->count = 0;
    }
    for (uint32_t i = 0; i < 6; i++)
        add(sim, PTC64 + 4 * i, sim->tally.tx_classes[i]);
    wire->refused += sim->tally.refused;
}

void rl_sim_publish(struct rl_sim *sim)
{
    publish_rx_queues(sim);
    publish_received(sim);
    publish_sent(sim);
    memset(&sim->tally, 0, sizeof sim->tally);
    sim->unpublished = 0;
}
