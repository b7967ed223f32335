/* Settlement of a dead worker: decides about each buffer that it held. Runs between two passes.
 *
 * Guarantees (tests in tests/pipeline/driver/test_lane_renewal.py):
 *  - complete references are sent, references never popped go to the successor in order, and
 *    all others are freed
 *    (test_settlement_sends_the_complete_frees_the_lost_and_carries_the_rest)
 *  - the dead worker's rings are not trusted
 *    (test_references_that_a_dead_worker_changed_are_not_trusted)
 *  - the times of carried packets do not run back, whatever the dead worker wrote
 *    (tests/pipeline/driver/test_lane_times.py: test_carried_times_never_run_back) */
#include "../../shm/clock.h"
#include "../../shm/times.h"
#include "lane_inline.h"

#include <sched.h>
#include <string.h>

#define TRIES 64

/* The flags that a port gives a packet. The worker alone sets the others. */
#define OF_PORT (RL_FLAG_VLAN | RL_FLAG_HASH | RL_FLAG_L3_OK | RL_FLAG_L4_OK | RL_FLAG_CHECKSUM_BAD)

/* Sends or frees every complete reference on the dead worker's `out`, by its verdict.
 * Takes at most one full ring: a process that the worker forked may still write there.
 * Gives up after `deep_after` ticks and TRIES tries without progress on a full TX ring
 * (ticks alone also pass while this process waits for a processor). References that are then
 * left on `out` count as lost with the worker. */
static uint64_t settle_returned(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue)
{
    uint64_t before = lane->books->slots[queue].returned;
    uint32_t first = slot->out.own;
    uint64_t progress_at = rl_clock();
    uint32_t tries = 0;
    while (!slot->faulty && slot->out.own - first < RL_RING_CAPACITY) {
        struct rl_reference next;
        uint64_t now = rl_clock();
        if (rl_ring_peek(&slot->out, &next, 1) <= 0)
            break;
        if (rl_lane_take_back(lane, slot, queue, now)) {
            progress_at = now;
            tries = 0;
            continue;
        }
        if (++tries > TRIES && now - progress_at > lane->deep_after)
            break;
        for (uint32_t i = 0; i < lane->step_count; i++)
            lane->steps[i].step(lane->steps[i].context);
        for (uint32_t p = 0; p < lane->port_count; p++)
            lane->ports[p]->reclaim(lane->ports[p], queue % lane->ports[p]->queue_pairs);
        if (lane->yielding) /* a card in its own process may need this core */
            sched_yield();
        rl_pause();
    }
    return lane->books->slots[queue].returned - before;
}

/* The time of the packet at `at` on `in`, for the successor of the worker, which may have changed
 * it. A time of the lane's clock is therefore not later than `now` and not before `*earliest`, the
 * time of the packet before it. */
static int64_t carried_time(const struct rl_lane_slot *slot, const struct rl_port *port,
                            uint32_t at, int64_t *earliest, int64_t now)
{
    int64_t time = __atomic_load_n(&slot->times->of[at & (RL_RING_CAPACITY - 1)], __ATOMIC_RELAXED);
    if (port->stamps)
        return time;
    if (time > now || __atomic_load_n(&slot->times->unwanted, __ATOMIC_RELAXED))
        time = now;
    if (time > *earliest)
        *earliest = time;
    return *earliest;
}

/* Moves references that the worker never popped to its successor, in order; frees them when there
 * is none. The dead worker could write into the ring: every reference is checked like a
 * returned one, and the input port comes from the ledger. */
static void settle_unpopped(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
                            struct rl_ring_end *fresh, struct rl_times *times, uint32_t generation,
                            struct rl_settlement *result)
{
    struct rl_memory *memory = &lane->memory;
    int64_t now = rl_lane_now(lane), earliest = INT64_MIN;
    const struct rl_ring *ring = slot->in.ring;
    uint32_t consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
    if (slot->in.own - consumer > RL_RING_CAPACITY)
        return;
    for (uint32_t at = consumer; at != slot->in.own; at++) {
        struct rl_reference ref;
        memcpy(&ref, &ring->entries[at & (RL_RING_CAPACITY - 1)], sizeof ref);
        /* As in rl_ring_peek: a process that the worker forked may still write the entry. */
        __asm__ volatile("" ::"r"(&ref) : "memory");
        if (ref.buffer >= memory->buffers)
            continue;
        uint32_t word = memory->ledger[ref.buffer];
        uint32_t input = rl_ledger_input(word);
        if (!rl_ledger_is_worker(word, slot->generation, queue) ||
            (input != RL_INPUT_BLANK && !rl_frame_fits(&ref, memory->room, memory->frame_max)))
            continue;
        if (!fresh) {
            rl_release(memory, &ref.buffer, 1, RL_OUTCOME(drop_no_worker, blanks_lost),
                       &lane->books->slots[queue].lost);
            result->refused++;
            continue;
        }
        memory->ledger[ref.buffer] = rl_ledger_worker(generation, queue, input);
        ref.port = (uint8_t)input;
        if (input == RL_INPUT_BLANK) {
            ref.flags = RL_FLAG_BLANK;
            ref.offset = (uint16_t)memory->headroom;
            ref.length = 0;
        } else {
            ref.flags &= OF_PORT;
            int64_t time = carried_time(slot, lane->ports[input], at, &earliest, now);
            rl_times_put(times, fresh, 1, NULL, time);
        }
        rl_ring_push(fresh, &ref, 1);
        result->carried++;
    }
}

/* Frees every buffer that the worker still holds by the ledger, and counts it as lost. */
static uint64_t settle_lost(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue)
{
    uint64_t lost = 0;
    for (uint32_t buffer = 0; buffer < lane->memory.buffers; buffer++) {
        if (!rl_ledger_is_worker(lane->memory.ledger[buffer], slot->generation, queue))
            continue;
        rl_release(&lane->memory, &buffer, 1, RL_OUTCOME(drop_worker_lost, blanks_lost),
                   &lane->books->slots[queue].lost);
        lost++;
    }
    return lost;
}

void rl_lane_renew(struct rl_lane *lane, uint32_t queue, struct rl_rings_segment *fresh,
                   uint32_t generation, struct rl_settlement *result)
{
    struct rl_lane_slot *slot = &lane->slots[queue];
    struct rl_slot_counters *count = &lane->books->slots[queue];
    struct rl_ring_end in = {0}, out = {0};
    struct rl_times *times = fresh ? &fresh->times : NULL;
    memset(result, 0, sizeof *result);
    if (fresh) {
        in = rl_ring_end_new(&fresh->in);
        out = rl_ring_end_new(&fresh->out);
    }
    if (slot->attached) {
        result->returned = settle_returned(lane, slot, queue);
        settle_unpopped(lane, slot, queue, fresh ? &in : NULL, times, generation, result);
        result->lost = settle_lost(lane, slot, queue);
        count->carried += result->carried;
    }
    slot->in = in;
    slot->out = out;
    slot->times = times;
    slot->attached = fresh != NULL;
    slot->faulty = 0;
    slot->generation = generation;
    slot->sampled = RL_NO_BUFFER;
    slot->wake_due = 0;
    count->generation = generation;
}
