/* The clock of all time stamps, in ticks: the time stamp counter on x86-64 (its rate is measured,
 * see rl_ticks_per_second), nanoseconds of CLOCK_MONOTONIC elsewhere. */
#ifndef RINGLINE_SHM_CLOCK_H
#define RINGLINE_SHM_CLOCK_H
#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
static inline uint64_t rl_clock(void)
{
    return __builtin_ia32_rdtsc();
}
static inline void rl_pause(void)
{
    __builtin_ia32_pause();
}
#else
static inline uint64_t rl_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static inline void rl_pause(void)
{
    __asm__ volatile("" ::: "memory");
}
#endif
#endif
