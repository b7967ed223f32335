/* Shared by the packet loop and the settlement of a dead worker: check the references that a
 * worker returned, then send or free their buffers.
 *
 * Guarantees (tests in tests/pipeline/driver/test_lane_hostile_worker.py):
 *  - no reference reaches a card unless its buffer is this worker's, its frame lies inside the
 *    buffer, and its port exists (test_an_invalid_reference_is_counted_and_refused,
 *    test_a_frame_at_the_limits_is_sent)
 *  - a buffer cannot be returned twice, nor by a worker that does not hold it
 *    (test_a_buffer_cannot_be_returned_twice, test_a_worker_cannot_return_what_another_holds)
 *  - a full TX ring loses nothing (tests/pipeline/driver/test_lane_waiting.py:
 *    test_a_full_tx_ring_holds_the_worker_up_and_loses_nothing) */
#ifndef RINGLINE_LANE_INLINE_H
#define RINGLINE_LANE_INLINE_H
#include "../../shm/frames.h"
#include "../../shm/ring.h"
#include "lane.h"
#include "../ports/memory.h"

#include <time.h>

#define NO_OUTPUT 0xfff /* output port in the words of dropped packets, until they are free */

/* The lane's clock, in nanoseconds since 1970. It never runs back: CLOCK_MONOTONIC does not, and
 * clock_offset only grows. */
static inline int64_t rl_lane_now(const struct rl_lane *lane)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + lane->clock_offset;
}

/* The sampled packet came back: adds its latency to the histogram. */
static inline void rl_sample_done(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
                                  uint64_t now)
{
    struct rl_slot_counters *count = &lane->books->slots[queue];
    uint64_t ticks = now - slot->sampled_at;
    uint64_t units = (ticks << 16) / lane->ticks_per_64ns_shifted;
    uint32_t bucket = units ? 64 - (uint32_t)__builtin_clzll(units) : 0;
    count->latency[bucket < RL_LATENCY_BUCKETS ? bucket : RL_LATENCY_BUCKETS - 1]++;
    count->latency_ticks += ticks;
    slot->sampled = RL_NO_BUFFER;
}

/* The counters of packets with this verdict that are freed: those to a port, because it is down. */
static inline struct rl_outcome rl_outcome_of(uint8_t verdict)
{
    struct rl_outcome named = RL_OUTCOME(drop_named, blanks_returned);
    if (verdict == RL_VERDICT_DROP)
        return RL_OUTCOME(drop_plugin, blanks_returned);
    if (verdict == RL_VERDICT_ERROR)
        return RL_OUTCOME(drop_plugin_error, blanks_returned);
    if (verdict < RL_VERDICT_REASON)
        return RL_OUTCOME(drop_tx_down, blanks_lost);
    named.packet += verdict - RL_VERDICT_REASON;
    return named;
}

/* A run: the first references with the same verdict whose buffers the worker holds and, if they go
 * to a port, whose frames fit. Puts their buffers into `buffers`, and gives each its next word at
 * once, so a second return in the same batch is refused. Returns their number.
 *
 * Everything that the loop compares with is a local: with loads and a counter on the stack it took
 * 2 ns per packet more. */
static inline uint32_t rl_accept_run(struct rl_lane *lane, struct rl_lane_slot *slot,
                                     uint32_t queue, const struct rl_reference *refs, uint32_t n,
                                     uint32_t *buffers, uint64_t now, uint32_t longest)
{
    uint32_t *ledger = lane->memory.ledger;
    uint32_t holder = rl_ledger_worker(slot->generation, queue, 0);
    uint32_t count = lane->memory.buffers, sampled = slot->sampled;
    uint8_t verdict = refs->port;
    /* Only frames that are sent must fit. */
    uint32_t room = verdict < lane->port_count ? lane->memory.room : 0;
    uint32_t next = rl_ledger_card_tx(0, room ? verdict : NO_OUTPUT);
    uint32_t *to = buffers;
    for (const struct rl_reference *ref = refs, *end = refs + n; ref < end; ref++) {
        uint32_t buffer = ref->buffer;
        if (ref->port != verdict || buffer >= count)
            break;
        uint32_t word = ledger[buffer];
        if ((word & ~0xffu) != holder || (room && !rl_frame_fits(ref, room, longest)))
            break;
        ledger[buffer] = next | (word & 0xffff);
        *to++ = buffer;
        if (__builtin_expect(buffer == sampled, 0))
            rl_sample_done(lane, slot, queue, now);
    }
    return (uint32_t)(to - buffers);
}

/* The same where a port has jumbo frames: not the constant, which the compiler compares with best.
 */
static RL_APART uint32_t rl_accept_jumbo(struct rl_lane *lane, struct rl_lane_slot *slot,
                                         uint32_t queue, const struct rl_reference *refs,
                                         uint32_t n, uint32_t *buffers, uint64_t now,
                                         uint32_t longest)
{
    return rl_accept_run(lane, slot, queue, refs, n, buffers, now, longest);
}

/* Worker to card. Copies references and takes them off `out` only after their packets are on a TX
 * ring or freed. So a full TX ring stops the worker and loses nothing. Returns how many
 * references were taken. */
static inline uint32_t rl_lane_take_back(struct rl_lane *lane, struct rl_lane_slot *slot,
                                         uint32_t queue, uint64_t now)
{
    uint32_t *ledger = lane->memory.ledger;
    struct rl_slot_counters *count = &lane->books->slots[queue];
    struct rl_reference refs[RL_BATCH_MAX];
    uint32_t buffers[RL_BATCH_MAX];
    int ready = slot->faulty ? 0 : rl_ring_peek(&slot->out, refs, RL_BATCH_MAX);
    if (ready <= 0) {
        if (ready == RL_RING_FAULT)
            rl_slot_fault(lane, slot, queue);
        return 0;
    }
    uint32_t n = (uint32_t)ready, taken = 0, jumbo = lane->memory.frame_max > RL_FRAME_MAX;
    uint32_t holder = rl_ledger_worker(slot->generation, queue, 0);
    while (taken < n) {
        uint8_t verdict = refs[taken].port;
        struct rl_port *port = verdict < lane->port_count ? lane->ports[verdict] : NULL;
        uint32_t run = 0;
        /* A drop reason counts whether or not the plugin has named it: names are not the lane's
         * business. */
        if (port || verdict >= RL_VERDICT_ERROR ||
            (uint8_t)(verdict - RL_VERDICT_REASON) < RL_REASONS_MAX)
            run = jumbo ? rl_accept_jumbo(lane, slot, queue, &refs[taken], n - taken, buffers, now,
                                          port ? port->frame_max : 0)
                        : rl_accept_run(lane, slot, queue, &refs[taken], n - taken, buffers, now,
                                        RL_FRAME_MAX);
        if (run == 0) {
            rl_refuse(lane, slot, queue, &refs[taken++]);
            continue;
        }
        if (!port || !port->ready) {
            rl_release(&lane->memory, buffers, run, rl_outcome_of(verdict), &count->returned);
            taken += run;
            continue;
        }
        uint32_t pair = queue < port->queue_pairs ? queue : queue % port->queue_pairs;
        uint32_t sent = port->tx_burst(port, pair, &refs[taken], run);
        struct rl_queue_counters *sender = rl_counters(&lane->memory, verdict, pair);
        sender->tx_bursts += sent > 0;
        /* No intent: the words have changed already, and settle_driver counts references
         * that `returned` does not contain yet (struct rl_intent). */
        count->returned += sent;
        taken += sent;
        if (sent < run) {
            sender->tx_waits++;
            for (uint32_t i = sent; i < run; i++)
                ledger[buffers[i]] = holder | rl_ledger_input(ledger[buffers[i]]);
            break;
        }
    }
    rl_ring_take(&slot->out, taken);
    return taken;
}
#endif
