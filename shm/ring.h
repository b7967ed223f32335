/* SPSC ring of packet references between two processes that do not trust each
 * other.
 *
 * Guarantees (each names its test in tests/shm/test_ring.py unless said):
 *  G1  what is popped is what was pushed, in order, each once
 *      (test_order_and_content; test_ring_stress.py runs ring_stress.c)
 *  G2  a reference is published only after it is written whole, and a slot is
 *      reused only after it was copied (ring_stress under ThreadSanitizer; with
 *      the release store weakened the sanitizer must complain)
 *  G3  a peer index out of range is reported as RL_RING_FAULT and never used
 *      to compute an address (test_hostile_peer_index)
 *  G4  nothing here waits, allocates or calls the system except rl_ring_wake
 *      and rl_ring_sleep (by reading; test_full_and_empty_return_at_once)
 *  G5  a consumer that sleeps is woken by the next push or by its own timeout
 *      (test_no_lost_wakeup, in test_ring_stress.py)
 *
 * Assumptions:
 *  A1  one producer and one consumer, each with its rl_ring_end in private memory
 *  A2  a new ring segment for every generation: an end starts at index 0
 *  A3  aligned 32-bit stores are not torn (true of every machine cffi runs on)
 */
#ifndef RINGLINE_SHM_RING_H
#define RINGLINE_SHM_RING_H
#include "types.h"

#include <string.h>

#define RL_RING_FAULT (-1)

/* Tests build this file with RL_RING_RELEASE weakened, to see that they notice. */
#ifndef RL_RING_RELEASE
#define RL_RING_RELEASE __ATOMIC_RELEASE
#endif

static inline struct rl_ring_end rl_ring_end_new(struct rl_ring *ring)
{
    return (struct rl_ring_end){ring, 0, 0};
}

/* Room for the producer: how many references, up to `want`, fit now. The
 * peer's index is loaded only when the cached one does not suffice. */
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

/* Copy `n` references in behind the last; the caller has asked for room. */
static inline void rl_ring_put(struct rl_ring_end *end, const struct rl_reference *from, uint32_t n)
{
    struct rl_reference *entries = end->ring->entries;
    uint32_t at = end->own & (RL_RING_CAPACITY - 1);
    uint32_t first = RL_RING_CAPACITY - at;
    if (n <= first) {
        memcpy(entries + at, from, n * sizeof *from);
    } else {
        memcpy(entries + at, from, first * sizeof *from);
        memcpy(entries, from + first, (n - first) * sizeof *from);
    }
    end->own += n;
    __atomic_store_n(&end->ring->producer, end->own, RL_RING_RELEASE);
}

/* Push up to `n`; returns how many went in, or RL_RING_FAULT. */
static inline int rl_ring_push(struct rl_ring_end *end, const struct rl_reference *from, uint32_t n)
{
    int room = rl_ring_room(end, n);
    if (room > 0)
        rl_ring_put(end, from, (uint32_t)room);
    return room;
}

/* Copy up to `n` references out without taking them; rl_ring_take follows. */
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
    if (n <= first) {
        memcpy(to, entries + at, n * sizeof *to);
    } else {
        memcpy(to, entries + at, first * sizeof *to);
        memcpy(to + first, entries, (n - first) * sizeof *to);
    }
    /* What the caller checks is the copy: the peer may write its entries at any
     * time, so they are never read a second time. */
    __asm__ volatile("" ::"r"(to) : "memory");
    return (int)n;
}

/* Give `n` entries back to the producer. */
static inline void rl_ring_take(struct rl_ring_end *end, uint32_t n)
{
    end->own += n;
    __atomic_store_n(&end->ring->consumer, end->own, RL_RING_RELEASE);
}

/* Pop up to `n`: copy, then publish. Returns how many, or RL_RING_FAULT. */
static inline int rl_ring_pop(struct rl_ring_end *end, struct rl_reference *to, uint32_t n)
{
    int got = rl_ring_peek(end, to, n);
    if (got > 0)
        rl_ring_take(end, (uint32_t)got);
    return got;
}
#endif
