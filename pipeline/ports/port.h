/* What a port offers to the lane, and what it is given. Plain declarations:
 * C and cffi read this file. All of it is private memory of the driver. */
#ifndef RINGLINE_PORT_H
#define RINGLINE_PORT_H
#include "../../shm/types.h"

/* Packet memory as a port sees it: buffers by index, their device addresses,
 * the lane's free list and its ledger. */
struct rl_memory {
    uint8_t *base; /* buffer 0 */
    uint32_t buffers;
    uint32_t stride;
    uint32_t headroom;
    uint32_t free_count;
    const uint64_t *bus; /* device address of each buffer */
    uint32_t *free;      /* LIFO stack of buffer indices */
    uint32_t *ledger;
    struct rl_lane_segment *books;
};

/* `queue` is a worker's number. A port with fewer queue pairs receives nothing for the
 * others, and sends for them on queue modulo `queue_pairs`. */
struct rl_port {
    /* Take up to `n` <= RL_BATCH_MAX received packets; never more. Fills every field of a
     * reference. Reposts descriptors from the free list. */
    uint32_t (*rx_burst)(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n);
    /* Post up to `n` packets, whose ledger words say already that they are on
     * this port's TX ring; returns how many found a descriptor (the caller takes
     * the words of the others back). Rings the doorbell once. */
    uint32_t (*tx_burst)(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n);
    /* Free what the card has sent, through rl_buffers_sent; returns how many. */
    uint32_t (*reclaim)(struct rl_port *port, uint32_t queue);
    struct rl_memory *memory;
    uint32_t index;       /* of this port in the instance */
    uint32_t queue_pairs; /* RX queues, and as many TX queues */
    uint32_t ready;       /* 0: link down or stopped; packets for it are dropped as tx_down */
    void *queues;         /* the driver's own */
};
#endif
