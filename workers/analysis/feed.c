/* Gives the packets of a capture to the worker's loop: see feed.h.
 *
 * The loop is that of a worker process (loop/loop.c), on rings in private memory. A batch is at
 * most RL_BATCH_MAX packets, so the buffers stay in the caches. */
#include "feed.h"
#include "../../shm/ring.h"
#include "../../shm/times.h"

static void push(struct rl_feed *feed, uint32_t n)
{
    if (!n)
        return;
    rl_times_put(feed->worker->times, &feed->in, n, feed->times, 0);
    feed->worker->times->last = feed->times[n - 1];
    rl_ring_push(&feed->in, feed->packets, n);
    feed->batch_at = feed->scan.packets - n;
    feed->passed += n;
}

void rl_feed_one(struct rl_feed *feed, uint64_t captured, uint64_t original, int64_t time)
{
    rl_scan_reference(feed->packets, 0, captured, original);
    feed->times[0] = time;
    push(feed, 1);
}

/* How many of `n` packets have the verdict of the first one. */
static int alike(const struct rl_reference *packets, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        count += packets[i].port == packets->port;
    return count;
}

/* Take what the worker returned, and count its verdicts; returns how many packets failed. */
static int take(struct rl_feed *feed)
{
    int failed = 0, n;
    uint64_t first = feed->batch_at + 1; /* of those peeked at, from 1 */
    while ((n = rl_ring_peek(&feed->out, feed->packets, RL_BATCH_MAX)) > 0) {
        /* Usually all have one verdict, and none is an error. */
        int same = feed->packets->port != RL_VERDICT_ERROR && alike(feed->packets, n) == n ? n : 0;
        feed->verdicts[feed->packets->port] += (uint64_t)same;
        for (int i = same; i < n; i++) {
            const struct rl_reference *packet = feed->packets + i;
            feed->verdicts[packet->port]++;
            if (packet->port == RL_VERDICT_ERROR && !failed++) {
                feed->wrong = (uint64_t)packet->buffer * RL_BUFFER_STRIDE + packet->offset;
                feed->wrong_length = packet->length;
                feed->wrong_packet = first + (uint64_t)i;
            }
        }
        rl_ring_take(&feed->out, (uint32_t)n);
        first += (uint64_t)n;
    }
    return n < 0 ? -1 : failed;
}

uint32_t rl_feed_run(struct rl_feed *feed)
{
    for (;;) {
        int reason = rl_worker_run(feed->worker);
        if (reason == RL_WORKER_TURN)
            continue;
        if (reason == RL_WORKER_BATCH)
            return RL_FEED_BATCH;
        int failed = reason == RL_WORKER_DRAINED ? take(feed) : -1;
        if (failed < 0)
            return RL_FEED_FAULT;
        *feed->progress = feed->scan.packets;
        if (failed && !feed->explained)
            return RL_FEED_WRONG;
        if (feed->passed >= feed->pause) {
            feed->passed = 0;
            return RL_FEED_PAUSE;
        }
        uint32_t why = feed->why;
        feed->why = RL_SCAN_FULL;
        if (why != RL_SCAN_FULL)
            return why;
        push(feed, rl_scan(&feed->scan, feed->packets, feed->times, RL_BATCH_MAX, &feed->why));
    }
}
