/* The end of the packet path of a card with descriptor rings: free what it has sent. */
#include "../memory.h"
#include "rings.h"

#define TX_DD (UINT64_C(1) << 32) /* upper word of a descriptor that the card has sent */

uint32_t rl_card_reclaim(struct rl_port *port, uint32_t queue)
{
    struct rl_card *card = port->queues;
    struct rl_descriptor_ring *ring = &card->tx[queue];
    uint32_t mask = ring->mask;
    uint32_t done = 0;
    while (ring->clean != ring->next) {
        uint32_t first = ring->clean;
        const struct rl_posted_burst *burst = &ring->bursts[first];
        const struct rl_descriptor *last = &ring->descriptors[(burst->end - 1) & mask];
        if (!(__atomic_load_n(&last->upper, __ATOMIC_ACQUIRE) & TX_DD))
            break;
        struct rl_queue_counters *count = rl_counters(port->memory, port->index, queue);
        uint32_t picked[RL_BATCH_MAX];
        const uint32_t *sent = &ring->buffers[first];
        uint32_t n = burst->packets;
        if (__builtin_expect(first + n != burst->end,
                             0)) { /* a context or the ring's end lies between */
            sent = picked;
            for (uint32_t at = first, i = 0; i < n; at = (at + 1) & mask)
                if (ring->buffers[at] != RL_NO_BUFFER)
                    picked[i++] = ring->buffers[at];
        }
        ring->clean = burst->end;
        count->tx_bytes += burst->bytes;
        rl_buffers_sent(port->memory, sent, n, count);
        done += n;
    }
    return done;
}
