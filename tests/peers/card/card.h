/* A device model of the Intel 82599 whose BAR is a file.
 *
 * It replaces a card in tests of ringline and shares no code with it: it knows only
 * the datasheet and the names of the DMA segments.
 *
 * The BAR is plain memory: the model sees a write when it polls, and a read has no
 * side effects. So statistics stay zero, and the tests compare traffic.
 *
 * Modelled: reset, EEPROM and DMA-init flags, link, master disable, bus
 * mastering, receive queues with advanced descriptors of one buffer, CRC
 * strip, unicast filter, receive-side scaling, transmit queues with advanced
 * data descriptors and RS.
 * A request that the card would refuse ends the run with a sentence in `fault`.
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
    uint64_t address; /* device address of its first byte */
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
    uint32_t rx_queues; /* highest queue in use, plus 1 */
    uint32_t tx_queues;
    uint8_t key[40];
    uint64_t resets;
    uint64_t ready_at; /* ns: when the flags after a reset are set */
    char fault[256];
};

uint64_t nanoseconds(void);
uint32_t toeplitz(const uint8_t *key, const uint8_t *data, size_t bytes);

/* Power on; `bar` and `config` must be set. */
void card_start(struct card *card);

/* Read the control registers once and act on them. */
void card_control(struct card *card);

/* True when link and receiver are on and at least one queue is enabled. */
bool card_receives(struct card *card);

/* Receive one frame; false when its queue has no descriptor. */
bool card_receive(struct card *card, const uint8_t *frame, uint32_t bytes);

/* Transmit one burst of each queue; `sent` is called with every frame. Returns how many. */
uint32_t card_transmit(struct card *card,
                       void (*sent)(void *context, const uint8_t *frame, uint32_t bytes),
                       void *context);
#endif
