/* Workers that answer in the driver's process: they stand in for worker processes where only the
 * time of the lane is measured. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_ANSWERS_H
#define RINGLINE_BENCH_ANSWERS_H
#include "../../../shm/types.h"

/* The workers' ends of the rings of the queues 0 to `queues` - 1. */
struct rl_answers {
    struct rl_ring_end in[16];
    struct rl_ring_end out[16];
    uint32_t queues;
};

/* Answer for the next queue too, whose rings are new. */
void rl_answers_add(struct rl_answers *answers, struct rl_rings_segment *rings);

/* Return every packet on the `in` rings with the port from which it came, as far as `out` has
 * room. `context` is a struct rl_answers: a lane steps it as it steps a device model (struct
 * rl_step), so its time does not count as the lane's. Returns how many packets. */
uint32_t rl_answers_step(void *context);
#endif
