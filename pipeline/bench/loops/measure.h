/* Measures single parts of ringline for the benchmark. All times are in ticks (clock.h). Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_MEASURE_H
#define RINGLINE_BENCH_MEASURE_H
#include "../../driver/lane.h"

/* Move references through a ring of ring.h for `ticks`, `bulk` at a time, at most 64. They compare
 * with rl_bare_produce and rl_bare_consume, which use a bare ring, and return the same. */
uint64_t rl_measure_produce(struct rl_ring *ring, uint32_t bulk, uint64_t ticks, uint64_t timeout);
uint64_t rl_measure_consume(struct rl_ring *ring, uint32_t bulk, uint64_t ticks, uint64_t timeout);

/* The result of a measurement: packets, and ticks without those inside the device model. */
struct rl_measured {
    uint64_t packets;
    uint64_t ticks;
};

/* Receive, transmit or forward at least `count` packets in bursts of `batch` on queue 0. The model
 * works between the bursts, and its time does not count. `whole`: the time to take buffers from
 * the free list counts too. A result with fewer packets: the port stopped moving them. */
void rl_measure_receive(struct rl_port *port, struct rl_step *model, uint64_t count, uint32_t batch,
                        struct rl_measured *result);
void rl_measure_transmit(struct rl_port *port, struct rl_step *model, uint64_t count,
                         uint32_t batch, uint32_t whole, struct rl_measured *result);
void rl_measure_forward(struct rl_port *port, struct rl_step *model, uint64_t count, uint32_t batch,
                        struct rl_measured *result);

/* Send one reference through a worker `n` times, with pauses of `gap` ticks, and store the ticks
 * of each round trip in `trips`. `wake`: wake the worker if it sleeps. Stops at the first trip
 * that takes more than `timeout` ticks; returns how many were complete. */
uint32_t rl_measure_round_trips(struct rl_rings_segment *rings, struct rl_ring_end *in,
                                struct rl_ring_end *out, const struct rl_reference *ref,
                                uint64_t *trips, uint32_t n, uint64_t gap, uint32_t wake,
                                uint64_t timeout);

/* Keep a worker busy: push `refs` (`n` of them, at most 64) again and again until `count`
 * references have come back, with the times that the lane writes. `frames`, if it is not NULL, are
 * `n` frames of `bytes` bytes, which are written into the buffers in `memory` before each push;
 * then a push waits until all references are back. Returns ticks, or 0 when none came back for
 * `timeout` ticks or the worker published an index out of range. */
uint64_t rl_measure_feed(struct rl_rings_segment *rings, struct rl_ring_end *in,
                         struct rl_ring_end *out, const struct rl_reference *refs, uint32_t n,
                         uint64_t count, uint64_t timeout, uint8_t *memory, const uint8_t *frames,
                         uint32_t bytes);
#endif
