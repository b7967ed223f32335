/* What the packet loop and the settlement of a dead worker share: checking the
 * references that a worker returned, and sending or freeing them. */
#ifndef RINGLINE_LANE_INLINE_H
#define RINGLINE_LANE_INLINE_H
#include "../../shm/ring.h"
#include "lane.h"
#include "../ports/memory.h"

#define NO_OUTPUT 0xfff /* "TX ring" of packets that are dropped, until they are free */

/* The worker wrote an index that cannot be: nothing of it is believed until
 * the supervisor has replaced it (it sees the counter). */
static inline void rl_slot_fault(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue)
{
    slot->faulty = 1;
    lane->books->slots[queue].ring_faults++;
}

/* True when the reference's frame lies inside what a card may read, and is one that
 * it sends: a tag which is to go in counts. */
static inline int rl_frame_fits(const struct rl_memory *memory, const struct rl_reference *ref)
{
    uint32_t tag = ref->flags & RL_FLAG_VLAN ? 4 : 0; /* bytes */
    return ref->length >= RL_FRAME_MIN && ref->length + tag <= RL_FRAME_MAX &&
           (uint32_t)ref->offset + ref->length <= memory->stride;
}

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

/* One reference that was not acceptable as it stands: refuse it, or, when the
 * buffer is the worker's after all, drop the packet. */
static inline void rl_refuse(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
                             const struct rl_reference *ref)
{
    struct rl_memory *memory = &lane->memory;
    struct rl_slot_counters *count = &lane->books->slots[queue];
    count->bad_reference++;
    if (ref->buffer < memory->buffers &&
        rl_ledger_is_worker(memory->ledger[ref->buffer], slot->generation, queue)) {
        if (ref->buffer == slot->sampled)
            slot->sampled = RL_NO_BUFFER;
        rl_release(memory, &ref->buffer, 1, RL_OUTCOME(drop_bad_reference, blanks_returned),
                   &count->returned);
    }
}

/* Worker to card. References are looked at in place and taken off `out` only
 * once their packets are on a TX ring or free, so a full TX ring holds the
 * worker up and loses nothing. Returns how many were taken. */
static inline uint32_t rl_lane_take_back(struct rl_lane *lane, struct rl_lane_slot *slot,
                                         uint32_t queue, uint64_t now)
{
    struct rl_memory *memory = &lane->memory;
    uint32_t *ledger = memory->ledger;
    struct rl_slot_counters *count = &lane->books->slots[queue];
    struct rl_reference refs[RL_BATCH_MAX];
    uint32_t buffers[RL_BATCH_MAX];
    int ready = slot->faulty ? 0 : rl_ring_peek(&slot->out, refs, RL_BATCH_MAX);
    if (ready <= 0) {
        if (ready == RL_RING_FAULT)
            rl_slot_fault(lane, slot, queue);
        return 0;
    }
    uint32_t n = (uint32_t)ready;
    uint32_t taken = 0;
    while (taken < n) {
        /* A run: acceptable references with one verdict. The ledger word
         * changes as each is accepted, so a second return is refused. */
        uint8_t verdict = refs[taken].port;
        int forward = verdict < lane->port_count;
        uint32_t output = forward ? verdict : NO_OUTPUT;
        uint32_t run = 0;
        if (forward || verdict == RL_VERDICT_DROP || verdict == RL_VERDICT_ERROR) {
            while (taken + run < n) {
                const struct rl_reference *ref = &refs[taken + run];
                if (ref->port != verdict || ref->buffer >= memory->buffers)
                    break;
                uint32_t word = ledger[ref->buffer];
                if (!rl_ledger_is_worker(word, slot->generation, queue) ||
                    (forward && !rl_frame_fits(memory, ref)))
                    break;
                ledger[ref->buffer] = rl_ledger_card_tx(word, output);
                buffers[run++] = ref->buffer;
                if (ref->buffer == slot->sampled)
                    rl_sample_done(lane, slot, queue, now);
            }
        }
        if (run == 0) {
            rl_refuse(lane, slot, queue, &refs[taken++]);
            continue;
        }
        if (!forward) {
            if (verdict == RL_VERDICT_DROP)
                rl_release(memory, buffers, run, RL_OUTCOME(drop_plugin, blanks_returned),
                           &count->returned);
            else
                rl_release(memory, buffers, run, RL_OUTCOME(drop_plugin_error, blanks_returned),
                           &count->returned);
        } else if (!lane->ports[verdict]->ready) {
            rl_release(memory, buffers, run, RL_OUTCOME(drop_tx_down, blanks_lost),
                       &count->returned);
        } else {
            struct rl_port *port = lane->ports[verdict];
            uint32_t sent = port->tx_burst(port, queue, &refs[taken], run);
            struct rl_queue_counters *sender = rl_counters(
                memory, verdict, queue < port->queue_pairs ? queue : queue % port->queue_pairs);
            sender->tx_bursts += sent > 0;
            /* Counted after the words say so: settle_driver makes up for what it finds
             * between the two. */
            count->returned += sent;
            if (sent < run) {
                sender->tx_waits++;
                for (uint32_t i = sent; i < run; i++)
                    ledger[buffers[i]] = rl_ledger_worker(slot->generation, queue,
                                                          rl_ledger_input(ledger[buffers[i]]));
                taken += sent;
                break;
            }
        }
        taken += run;
    }
    rl_ring_take(&slot->out, taken);
    return taken;
}
#endif
