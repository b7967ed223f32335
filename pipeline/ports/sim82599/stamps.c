/* Received packets with the times of their frames: see stamps.h. */
#include "stamps.h"

#define RX_DD 1u

/* The stamps are copied before the burst, which gives the descriptors back to the card. The burst
 * leaves out frames with an error: a packet has the stamp of the descriptor whose buffer it has. */
uint32_t rl_sim_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n)
{
    struct rl_card *card = port->queues;
    const struct rl_descriptor_ring *ring = &card->rx[queue];
    struct rl_sim_stamps *stamps = (struct rl_sim_stamps *)port->stamps;
    const int64_t *of = stamps->descriptors + queue * RL_SIM_STAMPS_PER_QUEUE;
    uint32_t buffers[RL_BATCH_MAX];
    uint32_t ready = 0;
    for (; ready < n; ready++) {
        uint32_t at = (ring->next + ready) & ring->mask;
        if (!(__atomic_load_n(&ring->descriptors[at].upper, __ATOMIC_ACQUIRE) & RX_DD))
            break;
        buffers[ready] = ring->buffers[at];
        stamps->of_burst[ready] = of[at];
    }
    uint32_t taken = rl_ixgbe_rx_burst(port, queue, refs, ready);
    for (uint32_t i = 0, packet = 0; packet < taken; i++)
        if (buffers[i] == refs[packet].buffer)
            stamps->of_burst[packet++] = stamps->of_burst[i];
    return taken;
}
