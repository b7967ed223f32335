/* The interface between a port and the lane. Plain declarations: C and cffi read
 * this file. All of it is private memory of the driver. */
#ifndef RINGLINE_PORT_H
#define RINGLINE_PORT_H
#include "../../shm/types.h"

/* Packet memory for a port: buffers by index, their device addresses, the
 * lane's free list and its ledger. */
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
    /* Take at most `n` <= RL_BATCH_MAX received packets; returns how many. Fills every field
     * of a reference. Posts a free buffer in place of each one taken. */
    uint32_t (*rx_burst)(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n);
    /* Post at most `n` packets; returns how many got a descriptor. The caller has set
     * their ledger words to this port's TX ring before, and resets the words of the
     * others afterwards. Rings the doorbell once. */
    uint32_t (*tx_burst)(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n);
    /* Free the buffers that the card has sent, with rl_buffers_sent; returns how many. */
    uint32_t (*reclaim)(struct rl_port *port, uint32_t queue);
    struct rl_memory *memory;
    uint32_t index;       /* of this port in the instance */
    uint32_t queue_pairs; /* RX queues, and as many TX queues */
    uint32_t ready;       /* 0: link down or stopped; packets for it are dropped as tx_down */
    void *queues;         /* private to the port */
};
#endif
