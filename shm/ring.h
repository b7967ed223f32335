/* SPSC ring of packet references between two processes that do not trust each other.
 * Sleeping and waking are in wait.h.
 *
 * Guarantees (tests in tests/shm/test_ring.py):
 *  G1  the consumer gets every reference once, in the order in which they were pushed
 *      (test_order_and_content)
 *      (tests/shm/test_ring_stress.py: test_processes_exchange_references_over_a_segment)
 *  G2  a reference is published only after all its bytes are written, and an entry is reused
 *      only after it was copied
 *      (tests/shm/test_ring_stress.py: test_threads_see_every_reference_whole_and_in_order,
 *      test_the_sanitizer_notices_when_the_release_store_is_weak)
 *  G3  a peer index out of range is reported as RL_RING_FAULT and never used to compute an
 *      address (test_hostile_peer_index)
 *  G4  no function waits, allocates or makes a system call (test_full_and_empty_return_at_once)
 *  G5  a copied reference is not read from the ring again
 *      (tests/test_memory_order.py: test_a_reference_is_not_read_again_after_it_was_copied)
 *
 * Assumptions:
 *  A1  one producer and one consumer, each with its rl_ring_end in private memory
 *  A2  every generation has a new ring segment, so an end starts at index 0
 *  A3  an aligned 32-bit load or store is one access, as on x86-64 and AArch64
 *
 * Order of memory accesses. Each index has one writer. Its release store pairs with the
 * peer's acquire load:
 *  - `producer`: the producer's stores to entries may not move behind its store of `producer`,
 *    and the consumer's loads of entries may not move before its load of `producer`. Otherwise
 *    the consumer copies an entry that is not written yet.
 *  - `consumer`: the consumer's loads of entries may not move behind its store of `consumer`,
 *    and the producer's stores to entries may not move before its load of `consumer`. Otherwise
 *    the producer overwrites an entry that is not copied yet.
 * A cached peer index needs no new load: the load that filled the cache was an acquire.
 */
#ifndef RINGLINE_SHM_RING_H
#define RINGLINE_SHM_RING_H
#include "types.h"

#include <string.h>

#define RL_RING_FAULT (-1)

/* Tests weaken RL_RING_RELEASE and check that the sanitizer reports it. */
#ifndef RL_RING_RELEASE
#define RL_RING_RELEASE __ATOMIC_RELEASE
#endif

static inline struct rl_ring_end rl_ring_end_new(struct rl_ring *ring)
{
    return (struct rl_ring_end){ring, 0, 0};
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

/* For the producer: how many references, at most `want`, fit now, or RL_RING_FAULT. Loads
 * `consumer` only when the cached value shows too little room: a load of a line that the peer
 * writes is a cache miss. */
static inline int rl_ring_room(struct rl_ring_end *end, uint32_t want)
{
    uint32_t room = RL_RING_CAPACITY - (end->own - end->peer);
    if (room < want) {
        uint32_t peer = __atomic_load_n(&end->ring->consumer, __ATOMIC_ACQUIRE);
        uint32_t used = end->own - peer;
        if (used > RL_RING_CAPACITY)
            return RL_RING_FAULT;
        end->peer = peer;
        room = RL_RING_CAPACITY - used;
    }
    return (int)(room < want ? room : want);
}

/* Append and publish `n` references. The caller got at least `n` from rl_ring_room. */
static inline void rl_ring_put(struct rl_ring_end *end, const struct rl_reference *from, uint32_t n)
{
    struct rl_reference *entries = end->ring->entries;
    uint32_t at = end->own & (RL_RING_CAPACITY - 1);
    uint32_t first = RL_RING_CAPACITY - at;
    first = first < n ? first : n;
    rl_copy(entries + at, from, first * sizeof *from);
    rl_copy(entries, from + first, (n - first) * sizeof *from);
    end->own += n;
    __atomic_store_n(&end->ring->producer, end->own, RL_RING_RELEASE);
}

/* Push at most `n` references; returns how many were pushed, or RL_RING_FAULT. */
static inline int rl_ring_push(struct rl_ring_end *end, const struct rl_reference *from, uint32_t n)
{
    int room = rl_ring_room(end, n);
    if (room > 0)
        rl_ring_put(end, from, (uint32_t)room);
    return room;
}

/* Copy at most `n` references and leave them on the ring; rl_ring_take removes them. Returns
 * how many were copied, or RL_RING_FAULT. */
static inline int rl_ring_peek(struct rl_ring_end *end, struct rl_reference *to, uint32_t n)
{
    const struct rl_reference *entries = end->ring->entries;
    uint32_t ready = end->peer - end->own;
    if (ready < n) {
        uint32_t peer = __atomic_load_n(&end->ring->producer, __ATOMIC_ACQUIRE);
        ready = peer - end->own;
        if (ready > RL_RING_CAPACITY)
            return RL_RING_FAULT;
        end->peer = peer;
        if (ready < n)
            n = ready;
    }
    uint32_t at = end->own & (RL_RING_CAPACITY - 1);
    uint32_t first = RL_RING_CAPACITY - at;
    first = first < n ? first : n;
    rl_copy(to, entries + at, first * sizeof *to);
    rl_copy(to + first, entries, (n - first) * sizeof *to);
    /* The peer may write its entries at any time, also between a check and a use. The caller
     * must check and use the same copy: this stops the compiler from reading an entry again. */
    __asm__ volatile("" ::"r"(to) : "memory");
    return (int)n;
}

/* Give `n` entries back to the producer. The caller has copied them. */
static inline void rl_ring_take(struct rl_ring_end *end, uint32_t n)
{
    end->own += n;
    __atomic_store_n(&end->ring->consumer, end->own, RL_RING_RELEASE);
}

/* Copy at most `n` references, then give their entries back. Returns how many, or
 * RL_RING_FAULT. */
static inline int rl_ring_pop(struct rl_ring_end *end, struct rl_reference *to, uint32_t n)
{
    int got = rl_ring_peek(end, to, n);
    if (got > 0)
        rl_ring_take(end, (uint32_t)got);
    return got;
}
#endif
