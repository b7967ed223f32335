/* The worker's packet loop: pop a batch from `in`, call the plugin, push it on `out`, wait.
 *
 * Guarantees (tests in tests/workers/process/test_loop.py):
 *  W1  every reference popped from `in` is pushed on `out`, once and in order
 *      (test_everything_comes_back_in_order)
 *  W2  at most RL_BATCH_MAX packets are popped from `in` and not yet pushed on `out`
 *      (test_at_most_one_batch_is_in_the_worker)
 *  W3  a verdict on `out` is a port of this instance, a drop or an error, for any
 *      verdict of the plugin
 *      (test_the_verdict_of_a_created_packet_is_checked_too)
 *      (tests/workers/tiers/test_contract.py: test_every_tier_keeps_the_contract)
 *  W4  rl_worker_run returns to Python every `turn_ticks`, also when `in` is empty or
 *      `out` is full (test_turns_come_when_the_peer_is_silent)
 *  W5  moments[i] is the time of packets[i], if the plugin reads times
 *      (test_every_packet_keeps_its_time)
 *
 * Assumption: the driver is trusted. It may hang or die, but the references that it puts
 * on `in` are within packet memory; a worker checks only the indices of the ring. */
#include "loop.h"
#include "../plugin.h"
#include "checksums.h"

#include "../../shm/cache.h"
#include "../../shm/clock.h"
#include "../../shm/times.h"
#include "../../shm/wait.h"

#include <sched.h>

#define SLEEP_NANOSECONDS 50000000u /* longest delay of a stop; waking up costs 0.1 ms */
#define ROOM_NANOSECONDS 50000      /* between two looks at a full `out` */

/* Count the time since the last pass as busy if that pass found packets, else as idle. */
static uint64_t count_pass(struct rl_worker *worker, uint32_t working)
{
    struct rl_worker_counters *counters = worker->counters;
    uint64_t now = rl_clock();
    if (now > worker->last) /* on an unpinned worker: the clock of another core may be behind */
        *(worker->working ? &counters->busy_ticks : &counters->idle_ticks) += now - worker->last;
    if (!working && worker->working)
        worker->idle_from = now;
    worker->working = working;
    worker->last = now;
    counters->heartbeat = now;
    return now;
}

/* `in` is empty or `out` is full. Poll for `spin_ticks`, with longer pauses after a quarter of that
 * time, then sleep: waking a sleeping worker costs the driver 9 us. Nobody wakes a worker that
 * waits for room on `out`, because then the driver is late or dead. */
static void wait_for_driver(struct rl_worker *worker, uint64_t now, int full)
{
    uint64_t idle = now - worker->idle_from;
    if (worker->yielding)
        sched_yield();
    else
        for (int pauses = idle < worker->spin_ticks / 4 ? 1 : 8; pauses; pauses--)
            rl_pause();
    if (worker->busy || idle < worker->spin_ticks)
        return;
    struct timespec nap = {0, ROOM_NANOSECONDS};
    worker->counters->sleeps += !full;
    if (full)
        nanosleep(&nap, NULL);
    else
        rl_ring_sleep(&worker->in, SLEEP_NANOSECONDS);
}

/* Pop up to a batch of references, and their times if the plugin reads them. Returns their number,
 * or RL_RING_FAULT. */
static int pop_batch(struct rl_worker *worker)
{
    int popped = rl_ring_peek(&worker->in, worker->packets, RL_BATCH_MAX);
    if (popped <= 0)
        return popped;
    if (worker->batch.times)
        rl_times_get(worker->times, &worker->in, worker->moments, (uint32_t)popped);
    rl_ring_take(&worker->in, (uint32_t)popped);
    return popped;
}

/* Move blanks from the batch to the stack `blanks`; return those that do not fit to the driver,
 * as created packets with the verdict drop. */
static void stash_blanks(struct rl_worker *worker)
{
    struct rl_batch *batch = &worker->batch;
    struct rl_reference back[RL_BATCH_MAX];
    uint32_t packets = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct rl_reference *packet = batch->packets + i;
        if (!(packet->flags & RL_FLAG_BLANK)) {
            worker->moments[packets] = worker->moments[i];
            batch->packets[packets++] = *packet;
        } else if (batch->blank_count < RL_BLANKS_MAX)
            batch->blanks[batch->blank_count++] = *packet;
        else
            back[batch->created++] = *packet;
    }
    batch->count = packets;
    for (uint32_t i = 0; i < batch->created; i++) {
        back[i].port = RL_VERDICT_DROP;
        batch->packets[packets + i] = back[i];
    }
}

/* Begin a batch of `popped` references, and count its packets. */
static void begin_batch(struct rl_worker *worker, uint32_t popped)
{
    struct rl_batch *batch = &worker->batch;
    uint32_t bytes = 0, flags = 0;
    batch->count = popped;
    batch->created = 0;
    batch->judged = 0;
    for (uint32_t i = 0; i < popped; i++) {
        /* The card wrote these lines: let the cache misses overlap. */
        __builtin_prefetch(rl_frame(batch, batch->packets + i), 1);
        bytes += batch->packets[i].length; /* of a blank: 0 */
        flags |= batch->packets[i].flags;
    }
    if (flags & RL_FLAG_BLANK)
        stash_blanks(worker);
    if (batch->times && batch->count)
        worker->last_time = worker->moments[batch->count - 1];
    worker->counters->packets += batch->count;
    worker->counters->bytes += bytes;
    worker->counters->batches += batch->count != 0;
}

/* Check and count the verdicts, and mark the batch to be pushed on `out`. */
static void finish_batch(struct rl_worker *worker)
{
    struct rl_batch *batch = &worker->batch;
    struct rl_worker_counters *counters = worker->counters;
    uint32_t forwarded = 0, dropped = 0, errors = 0, created = 0, named = 0;
    for (uint32_t i = 0; i < batch->count && batch->judged != batch->count; i++)
        batch->packets[i].port = RL_VERDICT_ERROR;
    for (uint32_t i = 0; i < batch->count; i++) {
        uint8_t verdict = batch->packets[i].port;
        forwarded += verdict < batch->ports;
        dropped += verdict == RL_VERDICT_DROP;
        errors += verdict == RL_VERDICT_ERROR;
    }
    /* Neither a port nor a drop: most often none. Drop reasons are told from errors below, so they
     * cost nothing when there are none. */
    uint32_t others = batch->count - forwarded - dropped - errors;
    worker->total = batch->count + batch->created;
    worker->sent = 0;
    /* Usually this loop passes over created packets only. Their verdicts are not in `others`. */
    for (uint32_t i = others ? 0 : batch->count; i < worker->total; i++) {
        uint8_t *verdict = &batch->packets[i].port;
        int reason = rl_verdict_is_reason(*verdict, batch->reasons);
        if (*verdict >= batch->ports && *verdict != RL_VERDICT_DROP && !reason)
            *verdict = RL_VERDICT_ERROR;
        created += i >= batch->count && *verdict < batch->ports;
        named += i < batch->count && reason;
    }
    rl_prepare_checksums(batch, worker->total, worker->times->engines);
    counters->forwarded += forwarded;
    counters->dropped += dropped + named;
    counters->plugin_errors += errors;
    counters->verdict_errors += others - named;
    counters->created += created;
}

/* Fill spans and verdicts for a plugin in Python; the verdict is drop at first. */
static void begin_python(struct rl_worker *worker)
{
    for (uint32_t i = 0; i < worker->batch.count; i++) {
        const struct rl_reference *packet = worker->packets + i;
        int64_t start = (int64_t)packet->buffer * RL_BUFFER_STRIDE + packet->offset;
        worker->spans[i] = (struct rl_span){start, start + packet->length, packet->port};
        worker->verdicts[i] = RL_VERDICT_DROP;
    }
    worker->python = RL_PYTHON_BATCH;
}

/* The plugin in Python has returned: check its 64-bit verdicts, then store them as 8 bits. */
static void finish_python(struct rl_worker *worker)
{
    struct rl_batch *batch = &worker->batch;
    int failed = worker->python == RL_PYTHON_FAILED;
    uint64_t now = rl_clock();
    if (now > worker->plugin_from)
        worker->counters->plugin_ticks += now - worker->plugin_from;
    for (uint32_t i = 0; i < batch->count; i++)
        batch->packets[i].port = failed ? RL_VERDICT_ERROR : rl_verdict(worker->verdicts[i], batch);
    for (uint32_t i = batch->count; i < batch->count + batch->created && failed; i++)
        batch->packets[i].port = RL_VERDICT_DROP;
    batch->judged = batch->count;
    worker->python = RL_PYTHON_NONE;
    finish_batch(worker);
}

/* Put up to RL_BATCH_MAX blanks in place of the batch, to be pushed; returns their number. */
static uint32_t return_blanks(struct rl_worker *worker)
{
    struct rl_batch *batch = &worker->batch;
    uint32_t n = batch->blank_count < RL_BATCH_MAX ? batch->blank_count : RL_BATCH_MAX;
    batch->blank_count -= n;
    for (uint32_t i = 0; i < n; i++) {
        worker->packets[i] = batch->blanks[batch->blank_count + i];
        worker->packets[i].port = RL_VERDICT_DROP;
    }
    worker->total = n;
    worker->sent = 0;
    return n;
}

/* The last `pushed` packets of those sent are on `out`: the core of the driver and the card need
 * the lines of their frames and references next. */
static void release_lines(const struct rl_worker *worker, uint32_t pushed)
{
    for (uint32_t i = worker->sent - pushed; i < worker->sent; i++)
        rl_cache_demote(rl_frame(&worker->batch, worker->packets + i));
    rl_ring_demote(&worker->out, pushed);
}

int rl_worker_run(struct rl_worker *worker)
{
    struct rl_worker_counters *counters = worker->counters;
    if (worker->python)
        finish_python(worker);
    if (!worker->turn_at)
        worker->turn_at = rl_clock() + worker->turn_ticks;
    for (;;) {
        if (worker->last >= worker->turn_at) {
            worker->turn_at = 0;
            return RL_WORKER_TURN;
        }
        if (worker->sent < worker->total) {
            int pushed = rl_ring_push(&worker->out, worker->packets + worker->sent,
                                      worker->total - worker->sent);
            if (pushed < 0)
                return RL_WORKER_FAULT;
            worker->sent += (uint32_t)pushed;
            release_lines(worker, (uint32_t)pushed);
        }
        int full = worker->sent < worker->total;
        counters->out_waits += full && worker->working;
        int popped = full ? 0 : pop_batch(worker);
        if (popped < 0)
            return RL_WORKER_FAULT;
        uint64_t now = count_pass(worker, popped > 0);
        if (popped) {
            begin_batch(worker, (uint32_t)popped);
            if (worker->function) {
                worker->function(&worker->batch);
                counters->plugin_ticks += rl_clock() - now;
                finish_batch(worker);
            } else if (worker->batch.count) {
                worker->plugin_from = now;
                begin_python(worker);
                return RL_WORKER_BATCH;
            } else {
                finish_batch(worker);
            }
        } else if (full || !worker->stopping) {
            wait_for_driver(worker, now, full);
        } else if (!return_blanks(worker)) {
            return RL_WORKER_DRAINED;
        }
    }
}
