/* Our own parts under the benchmark's clock. Plain declarations: C and cffi
 * read this file. */
#ifndef RINGLINE_BENCH_MEASURE_H
#define RINGLINE_BENCH_MEASURE_H
#include "../driver/lane.h"

/* Move `count` references through a ring of ours, `bulk` at a time, as
 * rl_limit_produce and rl_limit_consume do through a bare one. */
uint64_t rl_measure_produce(struct rl_ring *ring, uint64_t count, uint32_t bulk, uint64_t timeout);
uint64_t rl_measure_consume(struct rl_ring *ring, uint64_t count, uint32_t bulk, uint64_t timeout);

/* What a port's bursts came to: packets, and ticks without the model's turns. */
struct rl_measured {
    uint64_t packets;
    uint64_t ticks;
};

/* Receive, transmit or forward about `count` packets in bursts of `batch` on
 * queue 0; the model is stepped between, off the clock. A transmit loop that is measured
 * `whole` takes its buffers on the clock too. */
void rl_measure_receive(struct rl_port *port, struct rl_step *model, uint64_t count, uint32_t batch,
                        struct rl_measured *result);
void rl_measure_transmit(struct rl_port *port, struct rl_step *model, uint64_t count,
                         uint32_t batch, uint32_t whole, struct rl_measured *result);
void rl_measure_forward(struct rl_port *port, struct rl_step *model, uint64_t count, uint32_t batch,
                        struct rl_measured *result);

/* `n` round trips of one reference through a worker, `gap` ticks apart; each
 * trip's ticks go to `trips`. `wake`: the worker may sleep and is woken.
 * Returns how many answered within `timeout` ticks each. */
uint32_t rl_measure_round_trips(struct rl_rings_segment *rings, struct rl_ring_end *in,
                                struct rl_ring_end *out, const struct rl_reference *ref,
                                uint64_t *trips, uint32_t n, uint64_t gap, uint32_t wake,
                                uint64_t timeout);

/* Keep a worker busy: `refs` (n of them, at most 64) go round and round until `count`
 * have come back. Returns ticks, 0 when the worker stood still for `timeout` ticks. */
uint64_t rl_measure_feed(struct rl_ring_end *in, struct rl_ring_end *out,
                         const struct rl_reference *refs, uint32_t n, uint64_t count,
                         uint64_t timeout);
#endif
