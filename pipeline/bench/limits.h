/* Bare loops for the benchmark: the same movement of memory as ours, with
 * nothing of ours around it. What they reach is the limit of this machine in
 * this minute. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_LIMITS_H
#define RINGLINE_BENCH_LIMITS_H
#include "../../shm/types.h"

/* A ring as bare as it can be: no check of the peer's index. */
struct rl_bare_ring {
    uint32_t producer;
    uint8_t producer_line[60];
    uint32_t consumer;
    uint8_t consumer_line[60];
    struct rl_reference entries[1024];
};

/* Ticks for `rounds` dependent multiply-adds. */
uint64_t rl_limit_arithmetic(uint64_t rounds);

/* One side of a cache line that two cores hand back and forth `rounds` times;
 * `side` 0 begins. Ends early after `timeout` ticks without an answer.
 * Returns ticks; 0 when the other side did not answer. */
uint64_t rl_limit_ping(uint32_t *line, uint32_t side, uint32_t rounds, uint64_t timeout);

/* Move `count` references through a bare ring, `bulk` at a time. Each returns
 * its ticks, or 0 when the other side stood still for `timeout` ticks. */
uint64_t rl_limit_produce(struct rl_bare_ring *ring, uint64_t count, uint32_t bulk,
                          uint64_t timeout);
uint64_t rl_limit_consume(struct rl_bare_ring *ring, uint64_t count, uint32_t bulk,
                          uint64_t timeout);

/* The pipeline without us, in two processes: `there` takes references from `in`,
 * swaps the MAC addresses of their frames in `memory` and puts them on `out`;
 * `here` keeps the rings full. `count` references go round. */
uint64_t rl_limit_here(struct rl_bare_ring *in, struct rl_bare_ring *out, uint64_t count,
                       uint32_t buffers, uint64_t timeout);
uint64_t rl_limit_there(struct rl_bare_ring *in, struct rl_bare_ring *out, uint8_t *memory,
                        uint64_t count, uint64_t timeout);

/* Swap the MAC addresses of `n` frames of 64-packet batches, `rounds` times. */
uint64_t rl_limit_swap(uint8_t *memory, const struct rl_reference *refs, uint32_t n,
                       uint64_t rounds);

/* Read `n` 16-byte descriptors and write each anew with a reference beside it,
 * `rounds` times: what a receive burst must move at least. */
uint64_t rl_limit_descriptors(uint64_t *descriptors, struct rl_reference *refs, uint32_t n,
                              uint64_t rounds);
#endif
