/* The worker loop. Plain declarations: the C compiler and cffi both read this file. */
#ifndef RINGLINE_WORKERS_LOOP_H
#define RINGLINE_WORKERS_LOOP_H
#include "../batch.h"

/* Why rl_worker_run returns to Python. */
#define RL_WORKER_TURN 0    /* turn_ticks have passed: read the control socket */
#define RL_WORKER_BATCH 1   /* no C function: Python must process `batch` */
#define RL_WORKER_DRAINED 2 /* stopping, `in` is empty and everything is on `out` */
#define RL_WORKER_FAULT 3   /* a ring index was out of range */

#define RL_BLANKS_MAX 1024

/* The state of a batch that Python processes. */
#define RL_PYTHON_NONE 0
#define RL_PYTHON_BATCH 1
#define RL_PYTHON_FAILED 2 /* set by Python: `process` raised; every packet is an error */

/* For Python: the first byte and the end of a frame, counted from buffer 0, and its input port. */
struct rl_span {
    int64_t start;
    int64_t end;
    int64_t port;
};

/* The state of a worker's loop, in its private memory. */
struct rl_worker {
    struct rl_ring_end in;
    struct rl_ring_end out;
    struct rl_worker_counters *counters;
    rl_batch_function function; /* NULL: batches go to Python */
    struct rl_batch batch;
    uint32_t total;    /* references in `packets` to push on `out` ... */
    uint32_t sent;     /* ... and how many of them are pushed */
    uint32_t stopping; /* set by Python: empty `in`, return the blanks, RL_WORKER_DRAINED */
    uint32_t busy;     /* never sleep */
    uint32_t yielding; /* shares its core with the driver: sched_yield instead of a pause */
    uint32_t working;  /* the last pass found packets */
    uint32_t python;   /* RL_PYTHON_* */
    uint32_t padding;
    uint64_t last;          /* clock at the last pass */
    uint64_t plugin_from;   /* clock when the plugin was called */
    uint64_t idle_from;     /* clock at the first pass without packets */
    uint64_t turn_at;       /* clock at the next turn; 0: rl_worker_run sets it */
    uint64_t turn_ticks;    /* between two turns */
    uint64_t spin_ticks;    /* polling an empty ring before the first sleep */
    struct rl_times *times; /* of the packets on `in`; set by Python */
    int64_t last_time;      /* of the packet that came last; 0: none, or the plugin reads none */
    uint64_t look;          /* Python adds 1 for each loop over a batch: for new memoryviews */
    struct rl_reference packets[128];
    int64_t verdicts[64]; /* of a batch in Python: 64 bits, so that they can be checked */
    struct rl_span spans[64];
    struct rl_reference blanks[1024];
    int64_t moments[64]; /* the times of `packets`, if Python let batch.times point here */
};

/* Run until one of the reasons above; returns it. */
int rl_worker_run(struct rl_worker *worker);

/* Columns over a batch: copy `bytes` bytes at `offset` of every frame to `rows`, one row per
 * packet, or with `back` from there. Bytes beyond a frame's end read as zero and are not written.
 */
void rl_batch_columns(const struct rl_batch *batch, uint32_t offset, uint32_t bytes, void *rows,
                      int back);

/* Put the Python type Frame (packet.c) into this module; returns 0 when there is no memory. */
int rl_define_frame(void);

/* rl_create of plugin.h as a function, for Python. */
uint8_t *rl_batch_create(struct rl_batch *batch, uint32_t length, uint32_t port);
#endif
