/* A multi-queue TAP: each queue is a descriptor of /dev/net/tun (kernel header linux/if_tun.h).
 * All of it is private memory of the driver. Plain declarations: C and cffi read this. */
#ifndef RINGLINE_TAP_H
#define RINGLINE_TAP_H
#include "../port.h"

/* A packet that tx_burst has given to the kernel. `bytes` 0: the kernel refused it. */
struct rl_tap_sent {
    uint32_t buffer;
    uint32_t bytes;
};

struct rl_tap_queue {
    int fd;
    uint32_t empty;           /* how often in a row no frame was there */
    uint64_t rests_until;     /* in ticks: no look for frames before */
    struct rl_tap_sent *sent; /* what `reclaim` has not counted yet: entries `tail` to `head` */
    uint32_t mask;            /* entries - 1; their number is a power of two */
    uint32_t head;
    uint32_t tail;
};

struct rl_tap {
    struct rl_port port;
    uint32_t receiving; /* 0: frames stay with the kernel */
    uint64_t rest;      /* ticks between two looks at a queue that stays empty */
    struct rl_tap_queue queues[16];
};

/* See struct rl_port. */
uint32_t rl_tap_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n);
uint32_t rl_tap_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n);
uint32_t rl_tap_reclaim(struct rl_port *port, uint32_t queue);

/* The number of buffers that `reclaim` has not counted yet. Adds one to seen[buffer] for each,
 * unless `seen` is NULL. */
uint32_t rl_tap_scan(const struct rl_tap *tap, uint8_t *seen);
#endif
