/* The queues outside the packet path: post buffers when a port starts, take them back when it
 * stops, count them for the books. */
#include "../memory.h"
#include "../virtqueue/driver.h"
#include "virtio.h"

void rl_virtio_post(struct rl_virtio *card)
{
    struct rl_memory *memory = card->port.memory;
    card->draining = 0;
    for (uint32_t q = 0; q < card->port.queue_pairs; q++) {
        struct rl_virtio_queue *rx = &card->rx[q], *tx = &card->tx[q];
        rx->broken = tx->broken = 0;
        rx->doorbells = rx->completed = tx->doorbells = 0;
        for (uint32_t id = 0; id <= rx->ring.mask; id++) {
            uint32_t buffer = memory->free[--memory->free_count];
            memory->ledger[buffer] = rl_ledger_card_rx(card->port.index);
            rx->buffers[id] = buffer;
            rx->ring.descriptors[id] = (struct rl_virtq_descriptor){
                .address = memory->bus[buffer] + memory->headroom - card->header,
                .length = card->header + memory->room - memory->headroom,
                .flags = RL_VIRTQ_WRITE};
            rl_virtq_offer(&rx->ring, (uint16_t)id);
        }
        uint32_t half = (tx->ring.mask + 1) / 2;
        tx->spares = 0;
        for (uint32_t id = half; id-- > 0;) {
            tx->ring.descriptors[id] = (struct rl_virtq_descriptor){
                card->no_offload, card->header, RL_VIRTQ_NEXT, (uint16_t)(id + half)};
            tx->spare[tx->spares++] = (uint16_t)id;
        }
    }
}

void rl_virtio_receive(struct rl_virtio *card)
{
    for (struct rl_virtio_queue *rx = card->rx; rx < card->rx + card->port.queue_pairs; rx++)
        if (rl_virtq_publish(&rx->ring)) {
            *rx->doorbell = rx->number;
            rx->doorbells++;
        }
}

void rl_virtio_return_all(struct rl_virtio *card)
{
    struct rl_memory *memory = card->port.memory;
    for (uint32_t q = 0; q < card->port.queue_pairs; q++) {
        struct rl_virtio_queue *rx = &card->rx[q], *tx = &card->tx[q];
        rl_virtio_reclaim(&card->port, q);
        rx->broken = tx->broken = 1; /* until the next rl_virtio_post */
        for (uint32_t id = 0; id <= rx->ring.mask || id <= tx->ring.mask; id++) {
            if (rx->buffers[id] != RL_NO_BUFFER)
                rl_buffer_free(memory, rx->buffers[id]);
            if (tx->buffers[id] != RL_NO_BUFFER)
                rl_release(memory, &tx->buffers[id], 1, RL_OUTCOME(drop_tx_down, blanks_lost),
                           NULL);
            rx->buffers[id] = tx->buffers[id] = RL_NO_BUFFER;
        }
    }
}

uint32_t rl_virtio_scan(const struct rl_virtio_queue *queue, uint32_t queues, uint8_t *seen)
{
    uint32_t buffers = 0;
    for (; queues-- > 0; queue++)
        for (uint32_t id = 0; id <= queue->ring.mask; id++)
            if (queue->buffers[id] != RL_NO_BUFFER) {
                buffers++;
                if (seen)
                    seen[queue->buffers[id]]++;
            }
    return buffers;
}
