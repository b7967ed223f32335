/* Calls every function of shm.h with edge cases, for AddressSanitizer and
 * UndefinedBehaviorSanitizer (test_sanitizers.py). Prints the check that failed. */
#define _GNU_SOURCE
#include "shm/balance.h"
#include "shm/shm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: not %s\n", __LINE__, #condition);                                     \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static uint32_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)seed * below >> 32);
}

/* Each batch is allocated with its exact size, so the sanitizer sees one byte too many. */
static int any_use(uint32_t start, int rounds)
{
    struct rl_ring *ring = calloc(1, sizeof *ring);
    struct rl_ring_end in = {ring, start, start}, out = {ring, start, start};
    uint32_t pushed = 0, popped = 0;
    ring->producer = ring->consumer = start;
    for (int round = 0; round < rounds; round++) {
        uint32_t n = draw(draw(8) ? 65 : 2 * RL_RING_CAPACITY);
        struct rl_reference *refs = malloc(n ? n * sizeof *refs : 1);
        for (uint32_t i = 0; i < n; i++)
            refs[i] = (struct rl_reference){.buffer = pushed + i};
        int done = rl_end_push(&in, refs, n);
        CHECK(done >= 0 && (uint32_t)done <= n);
        pushed += (uint32_t)done;
        free(refs);

        n = draw(draw(8) ? 65 : 2 * RL_RING_CAPACITY);
        refs = malloc(n ? n * sizeof *refs : 1);
        int peeked = rl_end_peek(&out, refs, n);
        CHECK(peeked >= 0 && (uint32_t)peeked <= n);
        if (draw(2)) {
            done = (int)draw((uint32_t)peeked + 1);
            rl_end_take(&out, (uint32_t)done);
        } else {
            done = rl_end_pop(&out, refs, n);
            CHECK(done == peeked);
        }
        for (int i = 0; i < done; i++)
            CHECK(refs[i].buffer == popped + (uint32_t)i);
        popped += (uint32_t)done;
        free(refs);
        CHECK(rl_end_room(&in, RL_RING_CAPACITY) == (int)(RL_RING_CAPACITY - (pushed - popped)));
    }
    free(ring);
    return 0;
}

/* The peer publishes any index; our own index has any value. */
static int hostile(int rounds)
{
    struct rl_ring *ring = calloc(1, sizeof *ring);
    for (int round = 0; round < rounds; round++) {
        uint32_t own = draw(4) ? draw(UINT32_MAX) : UINT32_MAX - draw(70);
        struct rl_ring_end end = {ring, own, own};
        uint32_t n = draw(65);
        struct rl_reference *refs = calloc(n ? n : 1, sizeof *refs);
        ring->producer = draw(2) ? draw(UINT32_MAX) : own + draw(2100) - 1050;
        ring->consumer = draw(2) ? draw(UINT32_MAX) : own - draw(2100) + 1050;
        int done = draw(2) ? rl_end_push(&end, refs, n) : rl_end_pop(&end, refs, n);
        CHECK(done >= -1 && done <= (int)n);
        free(refs);
    }
    free(ring);
    return 0;
}

static int sleeping(void)
{
    struct rl_ring *ring = calloc(1, sizeof *ring);
    struct rl_ring_end in, out;
    struct rl_reference ref = {0};
    rl_end_open(&in, ring);
    rl_end_open(&out, ring);
    rl_end_sleep(&out, 1000);
    CHECK(!rl_end_is_asleep(&in));
    CHECK(rl_end_push(&in, &ref, 1) == 1);
    rl_end_sleep(&out, 999999999);
    rl_end_wake(&in);
    CHECK(rl_end_pop(&out, &ref, 1) == 1);
    free(ring);
    return 0;
}

static int words(void)
{
    for (int round = 0; round < 100000; round++) {
        uint32_t generation = draw(UINT32_MAX), queue = draw(RL_QUEUES_MAX), input = draw(256);
        uint32_t word = rl_ledger_worker(generation, queue, input);
        CHECK(rl_ledger_is_worker(word, generation, queue));
        CHECK(!rl_ledger_is_worker(word, generation + 1, queue));
        uint32_t sent = rl_ledger_card_tx(word, draw(RL_PORTS_MAX));
        CHECK(rl_ledger_holder(sent) == RL_HOLDER_CARD_TX);
        CHECK(rl_ledger_input(sent) == input && rl_ledger_queue(sent) == queue);
    }
    return 0;
}

static int small_calls(void)
{
    uint64_t place = 0;
    uint64_t address = (uint64_t)(uintptr_t)&place;
    uint64_t before = rl_now();
    rl_write32(address + 4, 5);
    CHECK(rl_read32(address + 4) == 5 && place == UINT64_C(5) << 32);
    rl_publish32(address, 7);
    CHECK(place == (UINT64_C(5) << 32 | 7));
    rl_publish64(address, 1);
    CHECK(place == 1);
    CHECK(rl_ticks_per_second() > 1e6 && rl_ticks_per_second() < 1e11);
    CHECK(rl_now() > before);
    CHECK(rl_hash((const uint8_t *)"a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
    CHECK(rl_die_with_parent(0, getppid()) == 0);
    CHECK(rl_die_with_parent(12345, getppid()) == EINVAL);
    CHECK(rl_die_with_parent(0, -5) == -1);
    return 0;
}

int main(void)
{
    return any_use(0, 20000) || any_use(UINT32_MAX - 5000, 20000) || hostile(100000) ||
           sleeping() || words() || small_calls();
}
