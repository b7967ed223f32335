/* A card with descriptor rings: 16 bytes for a descriptor, and a tail register for each ring. Only
 * the descriptors are shared with the card; the rest is private memory of the driver. Plain
 * declarations: C and cffi read this. */
#ifndef RINGLINE_DESCRIPTOR_RINGS_H
#define RINGLINE_DESCRIPTOR_RINGS_H
#include "../port.h"

/* Any descriptor: receive, transmit data or transmit context. */
struct rl_descriptor {
    uint64_t lower;
    uint64_t upper;
};

/* The packets that one call of tx_burst posted. */
struct rl_posted_burst {
    uint32_t end; /* index of the descriptor after the last */
    uint32_t packets;
    uint32_t bytes;
};

/* Receive: every descriptor has a buffer; the card owns all but the one before
 * `next`, which is the tail. Transmit: the card owns descriptors [clean, next); only
 * the last descriptor of a burst reports completion, and `bursts` describes the burst
 * at the index of its first descriptor. */
struct rl_descriptor_ring {
    struct rl_descriptor *descriptors;
    volatile uint32_t *tail;
    uint32_t mask; /* descriptors - 1; their number is a power of two */
    uint32_t next;
    uint32_t clean;
    uint32_t held;    /* receive: descriptors with buffers: all or, when stopped, none */
    uint32_t chained; /* receive: all ones inside a frame of several descriptors, else 0 */
    uint32_t padding;
    uint64_t context; /* transmit: what the queue's context says; UINT64_MAX: there is none yet */
    uint8_t line[16];
    /* RL_NO_BUFFER: a context descriptor, or a part of a frame. 4096: the longest ring that the
     * configuration allows. */
    uint32_t buffers[4096];
    struct rl_posted_burst bursts[4096];
};

/* The card and each of its rings begin on a cache line. `port_and_flags` holds the
 * last 16 bits of a reference (the port's index in bits 48 to 55, flags from bit 56);
 * its index is made of bits of a receive descriptor, see the rx_burst of the card. */
struct rl_card {
    struct rl_port port;
    volatile uint32_t *unmask; /* the register that unmasks the receive interrupt, or NULL */
    uint32_t interrupt;        /* its bit in this register */
    uint8_t line[36];
    uint64_t port_and_flags[2048];
    struct rl_descriptor_ring rx[16];
    struct rl_descriptor_ring tx[16];
};

/* See struct rl_port. It expects that the card sets bit 32 of the upper word of a transmit
 * descriptor which it has sent. */
uint32_t rl_card_reclaim(struct rl_port *port, uint32_t queue);

/* Empty the TX rings and post a buffer in every RX descriptor; this erases the state
 * of an earlier start. There must be enough free buffers. */
void rl_card_post(struct rl_card *card);

/* Return every buffer of the rings to the free list. Call it only when the card does
 * no DMA. Packets that the card has not reported as sent are counted as dropped
 * because the output is down. */
void rl_card_return_all(struct rl_card *card);

/* Unmask the receive interrupt. The card masks it again when it has raised it. */
void rl_card_arm(struct rl_port *port);

/* Bursts of a card that is gone: nothing comes, and nothing is taken. */
uint32_t rl_card_rx_nothing(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_card_tx_nothing(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n);

/* The number of buffers on the rings of `queues` queues, counted descriptor by
 * descriptor. Adds one to seen[buffer] for each, unless `seen` is NULL. */
uint32_t rl_card_scan(const struct rl_descriptor_ring *rings, uint32_t queues, uint8_t *seen);
#endif
