/* The rings outside the packet path: post buffers when a port starts, take them back
 * when it stops, count them for the books. */
#include "../memory.h"
#include "rings.h"

void rl_card_post(struct rl_card *card)
{
    struct rl_memory *memory = card->port.memory;
    for (uint32_t q = 0; q < card->port.queue_pairs; q++) {
        struct rl_descriptor_ring *rx = &card->rx[q];
        struct rl_descriptor_ring *tx = &card->tx[q];
        rx->next = rx->chained = tx->next = tx->clean = 0;
        tx->context = UINT64_MAX;
        for (rx->held = 0; rx->held <= rx->mask; rx->held++) {
            uint32_t buffer = memory->free[--memory->free_count];
            memory->ledger[buffer] = rl_ledger_card_rx(card->port.index);
            rx->buffers[rx->held] = buffer;
            rx->descriptors[rx->held] =
                (struct rl_descriptor){memory->bus[buffer] + memory->headroom, 0};
        }
    }
}

void rl_card_return_all(struct rl_card *card)
{
    struct rl_memory *memory = card->port.memory;
    for (uint32_t q = 0; q < card->port.queue_pairs; q++) {
        struct rl_descriptor_ring *rx = &card->rx[q];
        struct rl_descriptor_ring *tx = &card->tx[q];
        rl_card_reclaim(&card->port, q);
        while (rx->held > 0)
            rl_buffer_free(memory, rx->buffers[--rx->held]);
        rx->next = 0; /* equal to `clean`, so that rl_card_scan counts nothing */
        for (; tx->clean != tx->next; tx->clean = (tx->clean + 1) & tx->mask)
            if (tx->buffers[tx->clean] != RL_NO_BUFFER)
                rl_release(memory, &tx->buffers[tx->clean], 1,
                           RL_OUTCOME(drop_tx_down, blanks_lost), NULL);
    }
}

uint32_t rl_card_scan(const struct rl_descriptor_ring *rings, uint32_t queues, uint8_t *seen)
{
    uint32_t buffers = 0;
    for (const struct rl_descriptor_ring *ring = rings; ring < rings + queues; ring++) {
        uint32_t used = ring->held ? ring->held : (ring->next - ring->clean) & ring->mask;
        for (uint32_t i = 0; i < used; i++) {
            uint32_t buffer = ring->buffers[(ring->clean + i) & ring->mask];
            if (buffer == RL_NO_BUFFER)
                continue;
            buffers++;
            if (seen)
                seen[buffer]++;
        }
    }
    return buffers;
}

void rl_card_arm(struct rl_port *port)
{
    const struct rl_card *card = port->queues;
    if (card->unmask)
        *card->unmask = card->interrupt;
}

uint32_t rl_card_rx_nothing(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n)
{
    (void)port, (void)queue, (void)refs, (void)n;
    return 0;
}

uint32_t rl_card_tx_nothing(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n)
{
    (void)port, (void)queue, (void)refs, (void)n;
    return 0;
}
