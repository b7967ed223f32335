/* The worker loop. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_WORKERS_LOOP_H
#define RINGLINE_WORKERS_LOOP_H
#include "../batch.h"

/* Why rl_worker_run came back to Python. */
#define RL_WORKER_TURN 0    /* it is time for the control turn */
#define RL_WORKER_BATCH 1   /* no C function: a batch waits in `batch` for Python */
#define RL_WORKER_DRAINED 2 /* stopping, `in` is empty and everything was returned */
#define RL_WORKER_FAULT 3   /* a ring index was out of range */

#define RL_BLANKS_MAX 1024

/* Where a batch is that Python has to judge. */
#define RL_PYTHON_NONE 0
#define RL_PYTHON_BATCH 1
#define RL_PYTHON_FAILED 2 /* set by Python: an exception; all of it is an error */

/* For Python: where a packet lies, from buffer 0 on, and its input port. */
struct rl_span {
    int64_t start;
    int64_t end;
    int64_t port;
};

/* Everything a worker's loop knows, in its private memory. */
struct rl_worker {
    struct rl_ring_end in;
    struct rl_ring_end out;
    struct rl_worker_counters *counters;
    rl_batch_function function; /* NULL: batches go to Python */
    struct rl_batch batch;
    uint32_t total;    /* entries of `packets` that go on `out` ... */
    uint32_t sent;     /* ... and how many of them did */
    uint32_t stopping; /* set by Python: finish `in`, return blanks, drained */
    uint32_t busy;     /* never sleep */
    uint32_t yielding; /* shares its core: let others run at every empty and full ring */
    uint32_t working;  /* the last pass found packets */
    uint32_t python;   /* RL_PYTHON_* */
    uint32_t padding;
    uint64_t last;        /* clock at the last pass */
    uint64_t plugin_from; /* clock when the plugin was called */
    uint64_t idle_from;   /* clock when `in` was first found empty */
    uint64_t turn_at;     /* clock of the next turn; 0: set it from turn_ticks */
    uint64_t turn_ticks;
    uint64_t spin_ticks; /* an empty ring is watched this long before the first sleep */
    struct rl_reference packets[128];
    int64_t verdicts[64]; /* of a batch with Python: not narrowed before they are checked */
    struct rl_span spans[64];
    struct rl_reference blanks[1024];
};

/* Set up a zeroed worker whose `counters` and rings are known. */
void rl_worker_begin(struct rl_worker *worker, struct rl_ring *in, struct rl_ring *out,
                     uint8_t *memory);

/* Run until one of the reasons above. */
int rl_worker_run(struct rl_worker *worker);

/* Columns over a batch: `bytes` bytes at `offset` of every frame, one row per
 * packet. Bytes beyond a frame's end read as zero and are not written. */
void rl_batch_gather(const struct rl_batch *batch, uint32_t offset, uint32_t bytes, uint8_t *rows);
void rl_batch_scatter(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                      const uint8_t *rows);

/* rl_create of plugin.h, for Python. */
uint8_t *rl_batch_create(struct rl_batch *batch, uint32_t length, uint32_t port);
#endif
