/* The 82599's descriptor rings as the bursts see them. Private memory of the
 * driver, but for the descriptors. Plain declarations: C and cffi read this. */
#ifndef RINGLINE_IXGBE_H
#define RINGLINE_IXGBE_H
#include "../port.h"

#define RL_IXGBE_NO_BUFFER 0xffffffff /* beside a context descriptor */

/* Both words of any descriptor: advanced receive, transmit data or context. */
struct rl_ixgbe_descriptor {
    uint64_t lower;
    uint64_t upper;
};

/* What one call of tx_burst posted. */
struct rl_ixgbe_burst {
    uint32_t end; /* index of the descriptor after the last */
    uint32_t packets;
    uint32_t bytes;
};

/* Receive: every descriptor has a buffer; the card owns all but the one before
 * `next`, where the tail stays. Transmit: descriptors [clean, next) are the card's; a
 * burst completes by its last descriptor alone, and what it is stands in `bursts`
 * at the index of its first descriptor. */
struct rl_ixgbe_ring {
    struct rl_ixgbe_descriptor *descriptors;
    volatile uint32_t *tail;
    uint32_t mask; /* descriptors - 1; their number is a power of two */
    uint32_t next;
    uint32_t clean;
    uint32_t held;    /* receive: descriptors with buffers, which is all or none */
    uint32_t chained; /* receive: all ones inside a frame of several descriptors */
    uint32_t vlan;    /* transmit: the tag in the queue's context; none yet: above 0xffff */
    uint8_t line[24];
    uint32_t buffers[4096]; /* the longest ring that the configuration allows */
    struct rl_ixgbe_burst bursts[4096];
};

/* Begins on a cache line, as its parts do. The end of a reference, the port's index
 * and the flags from bit 56, is looked up; ixgbe.c says by which of a receive
 * descriptor's bits. */
struct rl_ixgbe {
    struct rl_port port;
    uint8_t line[8];
    uint64_t port_and_flags[2048];
    struct rl_ixgbe_ring rx[16];
    struct rl_ixgbe_ring tx[16];
};

/* The bursts; see port.h. */
uint32_t rl_ixgbe_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                           uint32_t n);
uint32_t rl_ixgbe_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                           uint32_t n);
uint32_t rl_ixgbe_reclaim(struct rl_port *port, uint32_t queue);

/* Empty the TX rings and post a buffer in every RX descriptor, which leaves nothing of
 * an earlier life. Returns 0 when there are too few free buffers, and has done
 * nothing then. */
int rl_ixgbe_post(struct rl_ixgbe *card);

/* Take every buffer off the rings, once the card does no more DMA. What it has not
 * said to be sent is booked as dropped because the output is down. */
void rl_ixgbe_return_all(struct rl_ixgbe *card);

/* How many buffers the rings of `queues` queues hold, counted descriptor by descriptor. With
 * `seen` not NULL one is added to seen[buffer] for each. */
uint32_t rl_ixgbe_scan(const struct rl_ixgbe_ring *rings, uint32_t queues, uint8_t *seen);
#endif
