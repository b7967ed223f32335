/* Gives the packets of a capture to the worker's loop. Plain declarations: the C compiler and cffi
 * both read this file. */
#ifndef RINGLINE_WORKERS_FEED_H
#define RINGLINE_WORKERS_FEED_H
#include "../captures/scan.h"
#include "../loop/loop.h"

/* Why rl_feed_run returns: RL_SCAN_MORE, _ODD, _STOP, _TICK, or one of these. */
#define RL_FEED_BATCH 16 /* Python must process worker->batch, then call again */
#define RL_FEED_FAULT 17 /* a ring index was out of range */
#define RL_FEED_PAUSE 18 /* `pause` packets have passed */
#define RL_FEED_WRONG 19 /* the plugin failed on a packet, and `explained` is 0 */

struct rl_feed {
    struct rl_scan scan;
    struct rl_worker *worker;
    struct rl_ring_end in; /* the other ends of the worker's rings */
    struct rl_ring_end out;
    uint64_t pause;        /* packets between two RL_FEED_PAUSE */
    uint64_t passed;       /* since the last one */
    uint64_t *progress;    /* where the number of packets is shown to the parent */
    uint32_t why;          /* of the last rl_scan: to be returned after its packets */
    uint32_t explained;    /* set by Python */
    uint32_t wrong_length; /* of RL_FEED_WRONG: bytes of the frame, */
    uint64_t wrong;        /* where it is in packet memory, */
    uint64_t wrong_packet; /* and the number of the packet, from 1 */
    uint64_t batch_at;     /* packets before the present batch */
    uint64_t verdicts[256];
    struct rl_reference packets[64];
    int64_t times[64];
};

/* Run until one of the reasons above. */
uint32_t rl_feed_run(struct rl_feed *feed);

/* Give the worker one packet that Python read, whose bytes are in buffer 0. */
void rl_feed_one(struct rl_feed *feed, uint64_t captured, uint64_t original, int64_t time);
#endif
