/* When a measured loop ends: at its time, or when the other side makes no progress. */
#ifndef RINGLINE_BENCH_ENDING_H
#define RINGLINE_BENCH_ENDING_H
#include "../../../shm/clock.h"

#define RL_TURNS 256 /* between two looks at the clock */

struct rl_ending {
    uint64_t start;
    uint64_t since; /* the last progress */
    uint64_t ticks;
    uint64_t timeout;
    uint32_t turns;
};

/* A loop that begins now, for `ticks`. */
static inline struct rl_ending rl_begin(uint64_t ticks, uint64_t timeout)
{
    uint64_t now = rl_clock();
    return (struct rl_ending){now, now, ticks, timeout, 0};
}

/* After a turn that moved `n` references: whether the loop goes on. Looks at the clock rarely while
 * references move, and always while none do. */
static inline int rl_goes_on(struct rl_ending *ending, uint32_t n)
{
    if (n && ++ending->turns % RL_TURNS)
        return 1;
    uint64_t now = rl_clock();
    if (n)
        ending->since = now;
    return now - ending->start < ending->ticks && now - ending->since < ending->timeout;
}

/* `done` of a loop that ended at its time; 0 of one that ended because nothing moved. */
static inline uint64_t rl_ended(const struct rl_ending *ending, uint64_t done)
{
    return rl_clock() - ending->since < ending->timeout ? done : 0;
}
#endif
