/* Sleeping on a ring, and waking who sleeps there.
 *
 * The consumer sets `sleeping` and then looks at the index; the producer
 * publishes the index and then looks at `sleeping`. A processor may let a later
 * load pass an earlier store, so both sides need a full fence in between:
 * without it both may see the old value and a queue hangs. */
#ifndef RINGLINE_SHM_WAIT_H
#define RINGLINE_SHM_WAIT_H
#include "ring.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* For the producer after a push: true when the consumer sleeps or is about to.
 * Costs a full fence; no system call. */
static inline int rl_ring_is_asleep(struct rl_ring *ring)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&ring->sleeping, __ATOMIC_RELAXED) == 1;
}

/* Wake the consumer; one system call. The caller limits how often. */
static inline void rl_ring_wake(struct rl_ring *ring)
{
    __atomic_store_n(&ring->sleeping, 0, __ATOMIC_RELAXED);
    syscall(SYS_futex, &ring->sleeping, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* For the consumer: sleep until woken or `nanoseconds` (below 10^9) passed.
 * Returns at once when something was published meanwhile. */
static inline void rl_ring_sleep(struct rl_ring_end *end, uint32_t nanoseconds)
{
    struct rl_ring *ring = end->ring;
    struct timespec limit = {0, (long)nanoseconds};
    __atomic_store_n(&ring->sleeping, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE) == end->own)
        syscall(SYS_futex, &ring->sleeping, FUTEX_WAIT, 1, &limit, NULL, 0);
    __atomic_store_n(&ring->sleeping, 0, __ATOMIC_RELAXED);
}
#endif
