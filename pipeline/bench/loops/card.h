/* A stand-in for a card: it fills RX descriptors and completes TX descriptors, and does nothing
 * else. A lane can step it like a device model (struct rl_step). What remains of the time of the
 * lane is what a card on PCI would leave of it, except for the transfers by PCI. Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_CARD_H
#define RINGLINE_BENCH_CARD_H
#include "../../ports/descriptor_rings/rings.h"

/* One queue of an 82599 that was started. `filled` and `sent` are the next descriptors to fill and
 * to complete; both begin at 0. */
struct rl_stand_in {
    struct rl_card *card;
    uint32_t filled;
    uint32_t sent;
};

/* Write a frame of 60 bytes into every posted buffer that has none, fill its descriptor, and
 * complete every posted TX descriptor. `context` is a struct rl_stand_in; returns how many
 * descriptors it wrote. */
uint32_t rl_stand_in_step(void *context);
#endif
