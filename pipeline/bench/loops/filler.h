/* A card that fills RX descriptors and completes TX descriptors of all its queues, and does nothing
 * else: it stands in for a device model where only the time of the lane is measured. Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_FILLER_H
#define RINGLINE_BENCH_FILLER_H
#include "../../ports/descriptor_rings/rings.h"

/* An 82599 that was started. `filled` and `sent` are by queue the next descriptors to fill and to
 * complete; all begin at 0. */
struct rl_filler {
    struct rl_card *card;
    uint32_t busy; /* the first queues, which get packets; the others stay empty */
    uint32_t filled[16];
    uint32_t sent[16];
};

/* Fill at most 64 RX descriptors of each queue, with frames of 60 bytes that are not written, and
 * complete all TX descriptors. `context` is a struct rl_filler: a lane steps it as it steps a
 * device model (struct rl_step). Returns how many descriptors it wrote. */
uint32_t rl_filler_step(void *context);
#endif
