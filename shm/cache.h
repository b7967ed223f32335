/* Hints to the caches of the processor. A cache line that another core has written takes about
 * 50 ns to come; a hint starts its way before somebody waits for it. Hints change no content. They
 * are for x86-64, where they were measured; RINGLINE_NO_HINTS=1 builds without them
 * (tests/shm/test_cache.py: test_hints_can_be_left_out).
 *
 * What they bring to the pipeline on two cores, with frames of 64 bytes:
 *   rl_cache_demote after the worker's push: 1.23 times the packets on Intel, 1.00 on AMD EPYC
 *   rl_ring_fetch before the card's turn, with rl_copy (ring.h): 1.09 on Intel, 1.01 on AMD EPYC
 * Tried and left out: demoting `in` and the frames in the driver (slower), and prefetchw instead of
 * a prefetch for reading, in the worker or the simulated card (0.86 on Intel, 1.00 on AMD). */
#ifndef RINGLINE_SHM_CACHE_H
#define RINGLINE_SHM_CACHE_H
#include "types.h"

#define RL_CACHE_LINE 64
#if defined __x86_64__ && !defined RL_NO_HINTS
#define RL_HINT(hint) hint
#else
#define RL_HINT(hint) ((void)0)
#endif

/* This core has written the line at `address` and does not need it soon: move it to the cache that
 * all cores share. CLDEMOTE (Intel 64 and IA-32 Architectures Software Developer's Manual,
 * volume 2); processors without it, and AMD's, execute the same bytes as a NOP. */
static inline void rl_cache_demote(const void *address)
{
    (void)address;
    RL_HINT(__asm__ volatile("cldemote %0" ::"m"(*(const char *)address)));
}

/* For the producer: the last `n` pushed entries are the consumer's business now. */
static inline void rl_ring_demote(const struct rl_ring_end *end, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += RL_CACHE_LINE / sizeof(struct rl_reference))
        rl_cache_demote(&end->ring->entries[(end->own - n + i) & (RL_RING_CAPACITY - 1)]);
}

/* For the consumer: fetch the entries of the next `n` references that are ready. A hint: nothing is
 * taken, and an index out of range does no harm. */
static inline void rl_ring_fetch(const struct rl_ring_end *end, uint32_t n)
{
    const struct rl_reference *entries = end->ring->entries;
    uint32_t ready = __atomic_load_n(&end->ring->producer, __ATOMIC_RELAXED) - end->own;
    n = ready < n ? ready : n;
    for (uint32_t i = 0; i < n; i += RL_CACHE_LINE / sizeof *entries)
        RL_HINT(__builtin_prefetch(entries + ((end->own + i) & (RL_RING_CAPACITY - 1))));
}

#endif
