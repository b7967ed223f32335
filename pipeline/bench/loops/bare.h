/* Two bare rings between two processes: what this machine can do at most with the same work as the
 * rings of ringline and as a whole pipeline, without checks, books or sleep.
 *
 * These loops are fixed: goals are shares of their speed, so a change here moves every goal. Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_BARE_H
#define RINGLINE_BENCH_BARE_H
#include "../../../shm/types.h"

/* A ring without a check of the peer's index. */
struct rl_bare_ring {
    uint32_t producer;
    uint8_t producer_line[60];
    uint32_t consumer;
    uint8_t consumer_line[60];
    struct rl_reference entries[1024];
};

/* Move references through a bare ring for `ticks`: from an array of `bulk` of them, at most 64, to
 * the ring, and from the ring to an array. As many as there are move at once, but no fewer than
 * `fewest`: which of 1 and `bulk` is faster depends on the machine. Each returns how many it moved,
 * or 0 when the other side made no progress for `timeout` ticks. */
uint64_t rl_bare_produce(struct rl_bare_ring *ring, uint32_t bulk, uint32_t fewest, uint64_t ticks,
                         uint64_t timeout);
uint64_t rl_bare_consume(struct rl_bare_ring *ring, uint32_t bulk, uint32_t fewest, uint64_t ticks,
                         uint64_t timeout);

/* A bare pipeline in two processes, for `ticks`. `here` writes a frame of 64 bytes into a buffer of
 * `memory`, puts its reference on `in`, and takes references from `out`. `there` takes them from
 * `in`, swaps the MAC addresses of their frames and puts them on `out`. Each returns how many
 * references it took, or 0 when the other side made no progress for `timeout` ticks. */
uint64_t rl_bare_here(struct rl_bare_ring *in, struct rl_bare_ring *out, uint8_t *memory,
                      uint64_t ticks, uint64_t timeout);
uint64_t rl_bare_there(struct rl_bare_ring *in, struct rl_bare_ring *out, uint8_t *memory,
                       uint64_t ticks, uint64_t timeout);
#endif
