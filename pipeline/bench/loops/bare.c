/* The bare loops of bare.h. A reference moves as one register of 16 bytes. */
#include "bare.h"

#include "../../../shm/ring.h"
#include "ending.h"
#include "swap.h"

#define BULK_MAX 64
#define MASK (RL_RING_CAPACITY - 1)

typedef uint64_t vector __attribute__((vector_size(16), may_alias));

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* `n`, or 0 if it is below `fewest`. */
static inline uint32_t at_least(uint32_t fewest, uint32_t n)
{
    return n < fewest ? 0 : n;
}

static inline vector *entry(struct rl_bare_ring *ring, uint32_t at)
{
    return (vector *)&ring->entries[at & MASK];
}

/* Asks the processor to move a line to the cache that its peer shares. Older processors ignore the
 * instruction, `cldemote`. */
static inline void demote(const void *line)
{
#if defined(__x86_64__)
    __asm__ volatile(".byte 0x0f, 0x1c, 0x00" ::"a"(line) : "memory");
#else
    (void)line;
#endif
}

uint64_t rl_bare_produce(struct rl_bare_ring *ring, uint32_t bulk, uint32_t fewest, uint64_t ticks,
                         uint64_t timeout)
{
    vector batch[BULK_MAX] = {{0}};
    uint32_t own = 0, peer = 0, n;
    uint64_t done = 0;
    struct rl_ending ending = rl_begin(ticks, timeout);
    do {
        if (own + bulk - peer > RL_RING_CAPACITY)
            peer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
        n = at_least(fewest, least(bulk, RL_RING_CAPACITY - (own - peer)));
        batch[0][0] = own;
        __asm__ volatile("" ::"r"(batch) : "memory");
        uint32_t first = least(n, RL_RING_CAPACITY - (own & MASK));
        rl_copy(entry(ring, own), batch, first * sizeof *batch);
        rl_copy(entry(ring, 0), batch + first, (n - first) * sizeof *batch);
        if (n) {
            own += n;
            done += n;
            __atomic_store_n(&ring->producer, own, __ATOMIC_RELEASE);
        }
    } while (rl_goes_on(&ending, n));
    return rl_ended(&ending, done);
}

uint64_t rl_bare_consume(struct rl_bare_ring *ring, uint32_t bulk, uint32_t fewest, uint64_t ticks,
                         uint64_t timeout)
{
    vector batch[BULK_MAX];
    uint32_t own = 0, peer = 0, n;
    uint64_t done = 0;
    struct rl_ending ending = rl_begin(ticks, timeout);
    do {
        if (peer - own < bulk)
            peer = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE);
        n = at_least(fewest, least(bulk, peer - own));
        uint32_t first = least(n, RL_RING_CAPACITY - (own & MASK));
        rl_copy(batch, entry(ring, own), first * sizeof *batch);
        rl_copy(batch + first, entry(ring, 0), (n - first) * sizeof *batch);
        __asm__ volatile("" ::"r"(batch) : "memory");
        if (n) {
            own += n;
            done += n;
            __atomic_store_n(&ring->consumer, own, __ATOMIC_RELEASE);
        }
    } while (rl_goes_on(&ending, n));
    return rl_ended(&ending, done);
}

static uint8_t *frame_of(uint8_t *memory, uint32_t buffer)
{
    return memory + (uint64_t)buffer * RL_BUFFER_STRIDE + RL_BUFFER_HEADROOM;
}

/* At most RL_RING_CAPACITY references are under way, so neither side reads how far the other one
 * has emptied a ring, and buffer i is free again when entry i is. */
uint64_t rl_bare_here(struct rl_bare_ring *in, struct rl_bare_ring *out, uint8_t *memory,
                      uint64_t ticks, uint64_t timeout)
{
    vector frame = {0x0202020202020202, 0x0303030303030202}, sum = {0};
    uint32_t sent = 0, back = 0, peer = 0, n;
    uint64_t done = 0;
    struct rl_ending ending = rl_begin(ticks, timeout);
    do {
        n = least(BULK_MAX, RL_RING_CAPACITY - (sent - back));
        for (uint32_t i = 0; i < n; i++) {
            uint32_t at = (sent + i) & MASK;
            vector *bytes = (vector *)frame_of(memory, at);
            bytes[0] = bytes[1] = bytes[2] = bytes[3] = frame;
            vector reference = {at | (uint64_t)RL_BUFFER_HEADROOM << 32 | UINT64_C(60) << 48, 0};
            *entry(in, at) = reference;
        }
        if (n) {
            sent += n;
            __atomic_store_n(&in->producer, sent, __ATOMIC_RELEASE);
        }
        if (peer - back < BULK_MAX)
            peer = __atomic_load_n(&out->producer, __ATOMIC_ACQUIRE);
        n = least(BULK_MAX, peer - back);
        for (uint32_t i = 0; i < n; i++)
            sum += *entry(out, back + i);
        __asm__ volatile("" ::"x"(sum));
        back += n;
        done += n;
    } while (rl_goes_on(&ending, n));
    return rl_ended(&ending, done);
}

uint64_t rl_bare_there(struct rl_bare_ring *in, struct rl_bare_ring *out, uint8_t *memory,
                       uint64_t ticks, uint64_t timeout)
{
    vector refs[BULK_MAX];
    uint8_t *frames[BULK_MAX];
    uint32_t own = 0, peer = 0, n;
    uint64_t done = 0;
    struct rl_ending ending = rl_begin(ticks, timeout);
    do {
        if (peer - own < BULK_MAX)
            peer = __atomic_load_n(&in->producer, __ATOMIC_ACQUIRE);
        n = least(BULK_MAX, peer - own);
        for (uint32_t i = 0; i < n; i++) {
            refs[i] = *entry(in, own + i);
            frames[i] = frame_of(memory, (uint32_t)refs[i][0]);
            __builtin_prefetch(frames[i]);
        }
        for (uint32_t i = 0; i < n; i++) {
            rl_swap(frames[i]);
            *entry(out, own + i) = refs[i];
        }
        if (n) {
            own += n;
            done += n;
            __atomic_store_n(&out->producer, own, __ATOMIC_RELEASE);
            for (uint32_t i = 0; i < n; i++) {
                demote(frames[i]);
                if (i % 4 == 0)
                    demote(entry(out, own - n + i));
            }
        }
    } while (rl_goes_on(&ending, n));
    return rl_ended(&ending, done);
}
