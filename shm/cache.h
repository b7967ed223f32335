/* Hints to the caches of the processor, and the copy that rings use. A cache line that another core
 * has written takes about 50 ns to come; a hint starts its way before somebody waits for it. Hints
 * change no content. RINGLINE_NO_HINTS=1 builds without them.
 *
 * What they bring to the pipeline on two cores, with frames of 64 bytes:
 *   rl_cache_demote after the worker's push: 1.23 times the packets on Intel, 1.00 on AMD EPYC
 *   rl_cache_fetch before the card's turn, with rl_copy: 1.09 on Intel, 1.01 on AMD EPYC
 * Tried and left out: demoting `in` and the frames in the driver (slower), and prefetchw instead of
 * a prefetch for reading, in the worker or the simulated card (0.86 on Intel, 1.00 on AMD). */
#ifndef RINGLINE_SHM_CACHE_H
#define RINGLINE_SHM_CACHE_H
#include "types.h"

#include <string.h>

#define RL_CACHE_LINE 64

/* This core has written the line at `address` and does not need it soon: move it to the cache that
 * all cores share. CLDEMOTE (Intel 64 and IA-32 Architectures Software Developer's Manual,
 * volume 2); processors without it, and AMD's, execute the same bytes as a NOP. */
static inline void rl_cache_demote(const void *address)
{
#if defined(__x86_64__) && !defined(RL_NO_HINTS)
    __asm__ volatile("cldemote %0" ::"m"(*(const char *)address));
#else
    (void)address;
#endif
}

/* The line at `address` will be read soon, and another core may have written it. */
static inline void rl_cache_fetch(const void *address)
{
#ifndef RL_NO_HINTS
    __builtin_prefetch(address, 0);
#else
    (void)address;
#endif
}

/* Copy `bytes`, a multiple of 8: references, or their times. Of a memcpy with a variable length gcc
 * makes `rep movs` on x86-64, which takes as long to begin as it takes to copy 30 references. */
static inline void rl_copy(void *to, const void *from, size_t bytes)
{
    uint8_t *target = to;
    const uint8_t *source = from;
    for (; bytes >= 64; bytes -= 64, target += 64, source += 64) {
        memcpy(target, source, 64);
        __asm__("" : "+r"(source)); /* or the compiler makes one memcpy of the loop */
    }
    for (; bytes > 0; bytes -= 8, target += 8, source += 8) {
        memcpy(target, source, 8);
        __asm__("" : "+r"(source));
    }
}
#endif
