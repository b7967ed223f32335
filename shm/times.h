/* The times of the packets on an `in` ring (struct rl_times). A reference of 16 bytes has no room
 * for one, so they are in an array of their own.
 *
 * Guarantees (tests in tests/pipeline/driver/test_lane_times.py):
 *  - the driver writes only inside the array, whatever the worker wrote into the segment
 *    (test_a_hostile_worker_changes_no_other_memory)
 *  - a consumer gets the time that belongs to each reference
 *    (tests/shm/test_ring_stress.py: test_threads_see_every_reference_whole_and_in_order) */
#ifndef RINGLINE_SHM_TIMES_H
#define RINGLINE_SHM_TIMES_H
#include "ring.h"

/* For the producer: store the times of the next `n` references, before rl_ring_put publishes
 * them. `stamps` has one time for each; with NULL all get the time `now`. */
static inline void rl_times_put(struct rl_times *times, const struct rl_ring_end *end, uint32_t n,
                                const int64_t *stamps, int64_t now)
{
    for (uint32_t i = 0; i < n; i++)
        times->of[(end->own + i) & (RL_RING_CAPACITY - 1)] = stamps ? stamps[i] : now;
}

/* For the consumer: copy the times of the `n` references that rl_ring_peek copied, before
 * rl_ring_take gives their entries back. */
static inline void rl_times_get(const struct rl_times *times, const struct rl_ring_end *end,
                                int64_t *to, uint32_t n)
{
    uint32_t at = end->own & (RL_RING_CAPACITY - 1);
    uint32_t first = RL_RING_CAPACITY - at < n ? RL_RING_CAPACITY - at : n;
    rl_copy(to, times->of + at, first * sizeof *to);
    rl_copy(to + first, times->of, (n - first) * sizeof *to);
}
#endif
