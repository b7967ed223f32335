/* Sleep on a ring until a reference arrives, and wake the sleeper. The sleeper is a consumer;
 * the futex word is the ring's `sleeping`.
 *
 * Guarantee: a push followed by rl_ring_is_asleep and rl_ring_wake ends a sleep. Otherwise the
 * timeout ends it
 * (tests/shm/test_ring.py: test_a_sleeper_is_woken_or_wakes_by_itself)
 * (tests/shm/test_ring_stress.py: test_no_lost_wakeup, test_without_the_fences_a_wakeup_is_lost)
 * (tests/test_memory_order.py:
 * test_a_producer_has_a_full_fence_before_it_reads_whether_the_consumer_sleeps,
 * test_a_consumer_has_a_full_fence_between_its_flag_and_its_last_look)
 *
 * Order of memory accesses. Each side stores its own word and then loads the other's:
 *
 *     consumer: sleeping = 1; full fence; load producer
 *     producer: producer = n; full fence; load sleeping
 *
 * Release and acquire do not order a store before a later load of another word: a processor may
 * load while the store still waits in its store buffer. Then both sides could see the old value:
 * the consumer sleeps and the producer does not wake it. With a full fence on both sides at
 * least one of the two loads sees the other side's store. */
#ifndef RINGLINE_SHM_WAIT_H
#define RINGLINE_SHM_WAIT_H
#include "ring.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* For the producer, after a push: true when the consumer sleeps or is about to sleep. Costs a
 * full fence; makes no system call. */
static inline int rl_ring_is_asleep(struct rl_ring *ring)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&ring->sleeping, __ATOMIC_RELAXED) == 1;
}

/* Wake the consumer with one system call. The caller limits the rate. `sleeping` becomes 0
 * first: a consumer that has not reached FUTEX_WAIT yet then returns from it at once. */
static inline void rl_ring_wake(struct rl_ring *ring)
{
    __atomic_store_n(&ring->sleeping, 0, __ATOMIC_RELAXED);
    syscall(SYS_futex, &ring->sleeping, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* For the consumer: sleep until woken, at most `nanoseconds` (below 10^9). Returns at once when
 * `producer` is not the consumer's own index: a reference is there to take. */
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
