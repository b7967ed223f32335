/* The C side of a port: the functions that the lane calls, and the packet memory that a port
 * gets. All of it is private memory of the driver. Plain declarations: C and cffi read this
 * file. */
#ifndef RINGLINE_PORT_H
#define RINGLINE_PORT_H
#include "../../shm/types.h"

/* A function that is rarely called, so that its code is not in the middle of a loop. */
#define RL_APART __attribute__((noinline))

#define RL_NO_BUFFER 0xffffffff /* in place of the index of a buffer */

/* Packet memory as ports see it: buffers by index, their device addresses, the lane's free list
 * and its ledger. Functions are in memory.h. */
struct rl_memory {
    uint8_t *base;       /* first byte of buffer 0 */
    uint32_t buffers;    /* numbers of buffers end here: units of packet memory */
    uint32_t stride;     /* bytes of a unit: buffer n begins at n * stride */
    uint32_t room;       /* bytes of a buffer */
    uint32_t frame_max;  /* bytes of the longest frame that any port sends or receives */
    uint32_t headroom;   /* bytes of a buffer before the first that a card writes */
    uint32_t free_count; /* buffers on `free` */
    const uint64_t *bus; /* device address of each unit */
    uint32_t *free;      /* LIFO stack of buffer indices */
    uint32_t *ledger;    /* one word per unit (ledger.h) */
    struct rl_lane_segment *books;
};

/* `queue` is below `queue_pairs`. If there are more workers than that, the port receives nothing
 * for the others, and the lane sends their packets on the TX queue whose number is that of the
 * worker modulo `queue_pairs`. */
struct rl_port {
    /* Take at most `n` <= RL_BATCH_MAX received packets and fill every field of their
     * references; returns how many. Posts a free buffer for each. */
    uint32_t (*rx_burst)(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n);
    /* Post at most `n` packets and ring the doorbell at most once; returns how many found a
     * descriptor. The ledger words of all `n` already say that they are on this port's TX ring:
     * the caller changes those of the others back. */
    uint32_t (*tx_burst)(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n);
    /* Free the buffers that the card has sent, with rl_buffers_sent; returns how many. */
    uint32_t (*reclaim)(struct rl_port *port, uint32_t queue);
    struct rl_memory *memory;
    uint32_t index;       /* of this port in the instance */
    uint32_t queue_pairs; /* number of RX queues, and of TX queues */
    uint32_t frame_max;   /* bytes of the longest frame that it sends, its VLAN tag included */
    uint32_t ready;       /* 0: stopped or link down; packets for it are dropped as tx_down */
    void *queues;         /* private to the port's driver */
    /* NULL: the lane's clock says when a packet came. Else room for RL_BATCH_MAX times, in
     * nanoseconds since 1970, which rx_burst fills: one for each reference. */
    int64_t *stamps;
    /* NULL: the card cannot wake the lane. Else it tells the card to count up the eventfd `event`
     * as soon as a frame is there, once. */
    void (*arm)(struct rl_port *port);
    int32_t event; /* -1: the card is gone, and wakes nobody */
};

/* Count a frame with an error as received and dropped. The port posts its buffer again. */
void rl_count_error(struct rl_port *port, uint32_t queue, uint32_t buffer);
#endif
