/* Settlement of a dead worker, and the balances: what runs between passes. */
#include "../../shm/clock.h"
#include "lane_inline.h"

#include <sched.h>
#include <string.h>

_Static_assert(RL_LEDGER_FREE == RL_LEDGER_FREE_WORD, "declared twice, for Python and for C");

#define TRIES 64

/* Everything complete on the dead worker's `out` is sent or freed as it said. That
 * is one ring full at most: a child that it left behind may go on writing. A TX ring
 * that does not move for as long as a long silence, and was tried TRIES times, since
 * time goes by while this process has no processor, is not waited for: what is still
 * on `out` then counts as lost with the worker. */
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
            lane->ports[p]->reclaim(lane->ports[p], queue);
        if (lane->yielding) /* a card in a process of its own may want the core */
            sched_yield();
        rl_pause();
    }
    return lane->books->slots[queue].returned - before;
}

/* What was never popped goes to the successor, in order. The slots are shared
 * memory of the dead: every reference is checked like one that was returned,
 * and what the ledger knows better is taken from there. */
static void settle_unpopped(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
                            struct rl_ring_end *fresh, uint32_t generation,
                            struct rl_settlement *result)
{
    struct rl_memory *memory = &lane->memory;
    const struct rl_ring *ring = slot->in.ring;
    uint32_t consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
    if (slot->in.own - consumer > RL_RING_CAPACITY)
        return;
    for (uint32_t at = consumer; at != slot->in.own; at++) {
        struct rl_reference ref;
        memcpy(&ref, &ring->entries[at & (RL_RING_CAPACITY - 1)], sizeof ref);
        __asm__ volatile("" ::"r"(&ref) : "memory"); /* read once: a child of the dead may write */
        if (ref.buffer >= memory->buffers)
            continue;
        uint32_t word = memory->ledger[ref.buffer];
        uint32_t input = rl_ledger_input(word);
        if (!rl_ledger_is_worker(word, slot->generation, queue) ||
            (input != RL_INPUT_BLANK && !rl_frame_fits(memory, &ref)))
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
        } else {
            ref.flags &= (uint8_t)~RL_FLAG_BLANK;
        }
        rl_ring_push(fresh, &ref, 1);
        result->carried++;
    }
}

/* Whatever the ledger still says this worker holds died with it. */
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
    memset(result, 0, sizeof *result);
    if (fresh) {
        in = rl_ring_end_new(&fresh->in);
        out = rl_ring_end_new(&fresh->out);
    }
    if (slot->attached) {
        result->returned = settle_returned(lane, slot, queue);
        settle_unpopped(lane, slot, queue, fresh ? &in : NULL, generation, result);
        result->lost = settle_lost(lane, slot, queue);
        count->carried += result->carried;
    }
    slot->in = in;
    slot->out = out;
    slot->attached = fresh != NULL;
    slot->faulty = 0;
    slot->generation = generation;
    slot->sampled = RL_NO_BUFFER;
    slot->wake_due = 0;
    count->generation = generation;
}

uint32_t rl_lane_in_flight(const struct rl_lane *lane)
{
    uint32_t count = 0;
    for (uint32_t buffer = 0; buffer < lane->memory.buffers; buffer++) {
        uint32_t word = lane->memory.ledger[buffer];
        uint32_t holder = rl_ledger_holder(word);
        /* A blank that a worker has in hand is no packet yet, and may never be one. */
        count += holder == RL_HOLDER_CARD_TX ||
                 (holder == RL_HOLDER_WORKER && rl_ledger_input(word) != RL_INPUT_BLANK);
    }
    return count;
}

static void count_ledger(const struct rl_lane *lane, struct rl_balance *balance, uint8_t *seen,
                         uint64_t *blanks)
{
    for (uint32_t buffer = 0; buffer < lane->memory.buffers; buffer++) {
        uint32_t word = lane->memory.ledger[buffer];
        uint32_t input = rl_ledger_input(word);
        switch (rl_ledger_holder(word)) {
        case RL_HOLDER_FREE:
            balance->free++;
            continue;
        case RL_HOLDER_CARD_RX:
            balance->card_rx[input & (RL_PORTS_MAX - 1)]++;
            continue;
        case RL_HOLDER_CARD_TX:
            balance->card_tx[rl_ledger_output(word) & (RL_PORTS_MAX - 1)]++;
            break;
        case RL_HOLDER_WORKER:
            balance->worker[rl_ledger_queue(word) & (RL_QUEUES_MAX - 1)]++;
            if (seen)
                seen[buffer]++; /* the ledger is the one witness for these */
            break;
        default:
            balance->unusable++;
            if (seen)
                seen[buffer]++;
            continue;
        }
        if (input == RL_INPUT_BLANK)
            blanks[rl_ledger_queue(word) & (RL_QUEUES_MAX - 1)]++;
        else
            balance->in_flight[input & (RL_PORTS_MAX - 1)]++;
    }
}

static int64_t packets_residual(const struct rl_lane_segment *books, uint32_t port,
                                uint64_t in_flight)
{
    int64_t rest = -(int64_t)in_flight;
    for (uint32_t queue = 0; queue < RL_QUEUES_MAX; queue++) {
        const struct rl_queue_counters *count = &books->queues[port * RL_QUEUES_MAX + queue];
        rest += (int64_t)(count->rx_packets - count->transmitted - count->drop_plugin -
                          count->drop_plugin_error - count->drop_bad_reference -
                          count->drop_worker_lost - count->drop_no_worker - count->drop_tx_down -
                          count->drop_rx_error - count->drop_driver_lost);
    }
    return rest;
}

void rl_lane_balance(struct rl_lane *lane, const uint32_t *posted, uint8_t *seen)
{
    struct rl_lane_segment *books = lane->books;
    struct rl_balance fresh = {0};
    uint64_t blanks[RL_QUEUES_MAX] = {0};
    uint64_t held = 0;
    count_ledger(lane, &fresh, seen, blanks);
    for (uint32_t p = 0; p < RL_PORTS_MAX; p++) {
        fresh.packets_residual[p] = packets_residual(books, p, fresh.in_flight[p]);
        fresh.descriptor_residual[p] = (int64_t)(p < lane->port_count ? posted[p] : 0) -
                                       (int64_t)(fresh.card_rx[p] + fresh.card_tx[p]);
        held += fresh.card_rx[p] + fresh.card_tx[p];
    }
    for (uint32_t q = 0; q < RL_QUEUES_MAX; q++) {
        const struct rl_slot_counters *count = &books->slots[q];
        fresh.worker_residual[q] =
            (int64_t)(count->pushed - count->returned - count->lost - fresh.worker[q]);
        fresh.blanks_residual += (int64_t)(count->blanks_granted - count->blanks_transmitted -
                                           count->blanks_returned - count->blanks_lost - blanks[q]);
        held += fresh.worker[q];
    }
    fresh.buffers_residual =
        (int64_t)lane->memory.buffers - (int64_t)(lane->memory.free_count + held + fresh.unusable);
    if (seen) {
        fresh.complete = 1;
        for (uint32_t i = 0; i < lane->memory.free_count; i++)
            seen[lane->memory.free[i]]++;
        for (uint32_t buffer = 0; buffer < lane->memory.buffers; buffer++) {
            fresh.scan_missing += seen[buffer] == 0;
            fresh.scan_duplicates += seen[buffer] > 1;
        }
    }
    fresh.when = rl_clock();
    /* Readers are optimistic: odd means being written. */
    struct rl_balance *shown = &books->balance;
    uint32_t sequence = shown->sequence + 1;
    __atomic_store_n(&shown->sequence, sequence, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    fresh.sequence = sequence;
    memcpy(shown, &fresh, sizeof fresh);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&shown->sequence, sequence + 1, __ATOMIC_RELEASE);
}
