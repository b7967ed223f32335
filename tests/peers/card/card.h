/* A device model of the Intel 82599, for the far side of a BAR that is a file.
 *
 * It is here to stand in for a card in front of ringline, so it shares nothing
 * with it: neither source nor headers, only what the datasheet says of the
 * card and the names under which DMA memory is found.
 *
 * The BAR is plain memory: a write is seen when the model looks, a read changes
 * nothing. So statistics stay zero, and what is compared is the traffic.
 *
 * Modelled: reset, EEPROM and DMA-init flags, link, master disable, bus
 * mastering, receive queues with advanced descriptors of one buffer, CRC
 * strip, unicast filter, receive-side scaling, transmit queues with advanced
 * data descriptors and RS.
 * A demand that the card would not meet ends the run with a sentence in `fault`.
 */
#ifndef CARD_H
#define CARD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BAR_BYTES (512u << 10)
#define QUEUES 128
#define FRAME_ROOM 1518

struct window {
    uint64_t address; /* of its first byte, as the card sees it */
    uint8_t *memory;
    size_t bytes;
};

struct queue {
    bool enabled;
    uint64_t base;
    uint32_t entries;
    uint32_t head;
    uint64_t frames;
};

struct card {
    uint32_t *bar;
    const uint8_t *config; /* PCI configuration space */
    const char *instance;
    struct window descriptors;
    struct window packets;
    struct queue rx[QUEUES];
    struct queue tx[QUEUES];
    uint32_t rx_queues; /* the highest in use, and one */
    uint32_t tx_queues;
    uint8_t key[40];
    uint64_t resets;
    uint64_t ready_at; /* nanoseconds: when the flags after a reset come up */
    char fault[256];
};

uint64_t nanoseconds(void);
uint32_t toeplitz(const uint8_t *key, const uint8_t *data, size_t bytes);

/* What happens at power-on; `bar` and `config` are set. */
void card_start(struct card *card);

/* Look at the control registers once and follow them. */
void card_control(struct card *card);

/* True when frames can come in: up, receiving, at least one queue. */
bool card_receives(struct card *card);

/* Receive one frame; false when its queue has no descriptor. */
bool card_receive(struct card *card, const uint8_t *frame, uint32_t bytes);

/* Transmit what the queues hold, one burst of each; `sent` gets every frame. Returns how many. */
uint32_t card_transmit(struct card *card,
                       void (*sent)(void *context, const uint8_t *frame, uint32_t bytes),
                       void *context);
#endif
