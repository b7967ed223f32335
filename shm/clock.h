/* The clock of all time stamps, in ticks: the time stamp counter on x86-64 (its rate is measured,
 * see rl_ticks_per_second), nanoseconds of CLOCK_MONOTONIC elsewhere. */
#ifndef RINGLINE_SHM_CLOCK_H
#define RINGLINE_SHM_CLOCK_H
#include <stdint.h>
#include <time.h>

static inline uint64_t rl_clock(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

static inline void rl_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("" ::: "memory");
#endif
}
#endif
