/* The driver's packet loop. Each pass does this for each queue: it checks the references
 * that the worker returned, sends or frees their packets, then books received packets and
 * pushes them to the worker. Settlement (settle.c) and balances (balance.c) run between passes. */
#define _GNU_SOURCE
#include "lane.h"

#include "../../shm/cache.h"
#include "../../shm/clock.h"
#include "../../shm/times.h"
#include "../../shm/wait.h"
#include "lane_inline.h"

/* Cap on the references that a correct worker holds: two full rings and one batch.
 * `buffers = "auto"` provides this number for each worker. A worker that holds more is marked
 * as faulty, because it would leave no buffers to the other queues. */
#define HELD_MAX (2 * RL_RING_CAPACITY + RL_BATCH_MAX)
/* Pushes blanks on `in` until the worker has its configured number. */
static void grant_blanks(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue)
{
    struct rl_memory *memory = &lane->memory;
    struct rl_slot_counters *count = &lane->books->slots[queue];
    uint64_t held = count->blanks_granted - count->blanks_transmitted - count->blanks_returned -
                    count->blanks_lost;
    while (held < slot->blanks && memory->free_count > 0 && rl_ring_room(&slot->in, 1) == 1) {
        uint32_t buffer = memory->free[--memory->free_count];
        struct rl_reference blank = {.buffer = buffer,
                                     .offset = (uint16_t)memory->headroom,
                                     .port = RL_INPUT_BLANK,
                                     .flags = RL_FLAG_BLANK};
        uint32_t word = rl_ledger_worker(slot->generation, queue, RL_INPUT_BLANK);
        lane->books->intent.buffers[0] = buffer;
        rl_intend(lane->books, RL_INTENT_ASSIGN, 1, word, &count->blanks_granted, &count->pushed);
        memory->ledger[buffer] = word;
        count->blanks_granted++;
        count->pushed++;
        rl_intent_done(lane->books);
        held++;
        rl_ring_put(&slot->in, &blank, 1);
    }
}

/* Store when the next `n` packets on `in` came, for a worker whose plugin wants to know: until it
 * says otherwise, it may. The worker writes `unwanted`, which only decides whether the lane
 * writes at all. */
static void note_times(const struct rl_lane *lane, struct rl_lane_slot *slot,
                       const struct rl_port *port, uint32_t n)
{
    if (port->stamps)
        slot->times->last = port->stamps[n - 1];
    if (!__atomic_load_n(&slot->times->unwanted, __ATOMIC_RELAXED))
        rl_times_put(slot->times, &slot->in, n, port->stamps, rl_lane_now(lane));
}

static void wake_worker(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
                        uint64_t now)
{
    /* A worker that always claims to sleep would cost a system call per batch: the interval
     * limits that. `wake_due` remembers a wake-up that the interval delayed. */
    int asleep = rl_ring_is_asleep(slot->in.ring);
    slot->wake_due = asleep && now < slot->may_wake_at;
    if (!asleep || slot->wake_due)
        return;
    slot->may_wake_at = now + lane->wake_interval;
    lane->books->slots[queue].wakeups++;
    rl_ring_wake(slot->in.ring);
}

/* Card to worker: takes at most as many packets as `in` has room for. The others stay in RX
 * descriptors; when these are full too, the card drops packets and counts them. */
static uint32_t receive(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
                        struct rl_port *port, uint64_t now)
{
    struct rl_lane_segment *books = lane->books;
    struct rl_queue_counters *count = rl_counters(&lane->memory, port->index, queue);
    struct rl_reference *refs = books->intent.references;
    struct rl_slot_counters *pushed = &books->slots[queue];
    if (slot->faulty)
        return 0;
    int room = slot->attached ? rl_ring_room(&slot->in, RL_BATCH_MAX) : RL_BATCH_MAX;
    if (pushed->pushed - pushed->returned - pushed->lost > HELD_MAX + slot->blanks)
        room = RL_RING_FAULT;
    if (room <= 0) {
        if (room == RL_RING_FAULT)
            rl_slot_fault(lane, slot, queue);
        count->rx_waits += room == 0;
        return 0;
    }
    uint32_t n = port->rx_burst(port, queue, refs, (uint32_t)room);
    if (n == 0)
        return 0;
    uint32_t word = rl_ledger_worker(slot->generation, queue, port->index);
    if (!slot->attached) /* no worker: the packets are dropped below */
        word = rl_ledger_card_tx(word, NO_OUTPUT);
    rl_intend(books, RL_INTENT_RECEIVE, n, word, &count->rx_packets,
              slot->attached ? &pushed->pushed : NULL);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        lane->memory.ledger[refs[i].buffer] = word;
        bytes += refs[i].length;
    }
    count->rx_packets += n;
    count->rx_bytes += bytes;
    count->rx_bursts++;
    if (slot->attached) {
        if (slot->sampled == RL_NO_BUFFER) {
            slot->sampled = refs[0].buffer;
            slot->sampled_at = now;
        }
        pushed->pushed += n;
        note_times(lane, slot, port, n);
        rl_ring_put(&slot->in, refs, n);
    }
    rl_intent_done(books);
    if (!slot->attached) {
        uint32_t buffers[RL_BATCH_MAX];
        for (uint32_t i = 0; i < n; i++)
            buffers[i] = refs[i].buffer;
        rl_release(&lane->memory, buffers, n, RL_OUTCOME(drop_no_worker, blanks_lost), NULL);
    } else if (lane->adaptive) {
        wake_worker(lane, slot, queue, now);
    }
    return n;
}

uint32_t rl_lane_pass(struct rl_lane *lane)
{
    uint64_t now = rl_clock();
    struct rl_lane_counters *count = &lane->books->lane;
    if (lane->pass_at) {
        uint64_t own = now - lane->pass_at - lane->modelled_for;
        *(lane->moved ? &count->busy_ticks : &count->idle_ticks) += own;
    }
    lane->pass_at = now;
    lane->modelled_for = 0;
    for (uint32_t queue = 0; queue < lane->queues; queue++)
        if (lane->slots[queue].attached && now >= lane->slots[queue].rests_until)
            rl_ring_fetch(&lane->slots[queue].out, 2 * RL_BATCH_MAX);
    uint32_t modelled = 0;
    if (lane->step_count) {
        for (uint32_t i = 0; i < lane->step_count; i++)
            modelled += lane->steps[i].step(lane->steps[i].context);
        lane->modelled_for = rl_clock() - now;
        count->model_ticks += lane->modelled_for;
        now += lane->modelled_for;
    }
    uint32_t moved = 0;
    for (uint32_t queue = 0; queue < lane->queues; queue++) {
        struct rl_lane_slot *slot = &lane->slots[queue];
        uint32_t before = moved;
        if (now < slot->rests_until && lane->may_rest)
            continue;
        if (slot->attached) {
            /* At most two batches. A pass pushes one for each port, so with one port a backlog
             * on `out` shrinks. */
            uint32_t taken = rl_lane_take_back(lane, slot, queue, now);
            moved += taken;
            if (taken == RL_BATCH_MAX)
                moved += rl_lane_take_back(lane, slot, queue, now);
        }
        for (uint32_t p = 0; p < lane->port_count; p++) {
            struct rl_port *port = lane->ports[p];
            if (queue >= port->queue_pairs)
                continue;
            moved += port->reclaim(port, queue);
            if (lane->receiving)
                moved += receive(lane, slot, queue, port, now);
        }
        if (slot->attached && !slot->faulty) {
            if (slot->blanks && lane->receiving)
                grant_blanks(lane, slot, queue);
            if (slot->wake_due)
                wake_worker(lane, slot, queue, now);
        }
        /* To look at an empty queue costs 30 ns and more, because its cache lines are cold: with
         * 15 of them a packet of the 16th queue cost 1.4 times as much as without them, with this
         * rest 1.1 times. It ends at once when the lane has nothing else to do. */
        slot->quiet = moved == before ? slot->quiet + 1 : 0;
        slot->rests_until = slot->quiet > RL_EMPTY_PASSES ? now + lane->rest : 0;
    }
    count->passes++;
    count->heartbeat = now;
    lane->may_rest = lane->moved = moved;
    if (moved || modelled) {
        lane->progress_at = now;
        lane->empty_passes = 0;
    }
    return moved;
}

uint64_t rl_lane_run(struct rl_lane *lane, uint64_t until)
{
    uint64_t moved = 0;
    lane->called = 0;
    lane->may_rest = 0; /* a pass without a packet must have served every queue */
    uint32_t request;
    do { /* at least one pass: a result of 0 must mean that nothing was left to move */
        moved += rl_lane_pass(lane);
        if (lane->moved == 0)
            moved += rl_lane_wait(lane, until);
        request = __atomic_load_n(&lane->books->request, __ATOMIC_ACQUIRE);
    } while (lane->pass_at < until && request == lane->request_seen && !lane->called);
    lane->request_seen = request;
    return moved;
}
