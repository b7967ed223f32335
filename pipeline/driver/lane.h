/* A lane: one packet loop over all queues of all ports, with its own free list, ledger,
 * rings and counters. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_LANE_H
#define RINGLINE_LANE_H
#include "../ports/port.h"

#define RL_NO_BUFFER 0xffffffff

/* Ledger words that Python writes when the lane is put together. */
#define RL_LEDGER_UNUSABLE_WORD 0x00000000
#define RL_LEDGER_FREE_WORD 0x10000000

/* A worker slot as the lane sees it; private memory. */
struct rl_lane_slot {
    struct rl_ring_end in;
    struct rl_ring_end out;
    uint32_t attached; /* 0: no worker; what arrives is dropped as no_worker */
    uint32_t faulty;   /* an index out of range was seen; not polled any more */
    uint32_t generation;
    uint32_t blanks;   /* granted buffers that the worker shall have */
    uint32_t sampled;  /* the buffer whose way is being timed, or RL_NO_BUFFER */
    uint32_t wake_due; /* the worker slept when waking it was not yet due */
    uint64_t sampled_at;
    uint64_t may_wake_at;
};

/* An in-process device model: stepped once per pass, returns work done. */
struct rl_step {
    uint32_t (*step)(void *context);
    void *context;
};

struct rl_lane {
    struct rl_memory memory;
    struct rl_lane_segment *books;
    struct rl_port *ports[16];
    struct rl_step steps[16];
    struct rl_lane_slot slots[16]; /* by queue index */
    uint32_t port_count;
    uint32_t step_count;
    uint32_t queues;        /* workers: queue indices from 0 */
    uint32_t receiving;     /* 0 while draining: nothing more is taken from the cards */
    uint32_t adaptive;      /* 0: busy, never sleeps */
    uint32_t yielding;      /* this core is shared: give it away whenever there is nothing to do */
    uint32_t sleep_ns;      /* longest sleep while traffic may be near */
    uint32_t deep_sleep_ns; /* longest sleep after a long silence; 0: never deeper */
    uint64_t pause_after;   /* ticks of idleness until a pass ends in longer pauses ... */
    uint64_t sleep_after;   /* ... in sleep ... */
    uint64_t deep_after;    /* ... in deep sleep */
    uint64_t wake_interval; /* ticks between two wake-ups of one worker */
    uint64_t ticks_per_64ns_shifted; /* ticks in 64 ns, times 2^16: latency buckets */
    uint64_t progress_at;            /* private from here: of the last pass that moved something */
    uint64_t pass_at;
    uint64_t modelled_for; /* ticks of the last pass that were the models' */
    uint32_t request_seen;
    uint32_t moved;
    uint32_t empty_passes;
};

/* What settling a dead worker's generation came to. */
struct rl_settlement {
    uint64_t returned; /* complete on `out`: transmitted or dropped as the plugin said */
    uint64_t carried;  /* never popped: handed to the successor, in order */
    uint64_t lost;     /* popped and not returned, blanks included */
    uint64_t refused;  /* never popped and no successor */
};

/* Run until the clock reaches `until` or the supervisor asks for a control turn,
 * but one pass at least. Returns the packets moved: 0 says that nothing was left. */
uint64_t rl_lane_run(struct rl_lane *lane, uint64_t until);

/* One pass over models, ports and queues; for drains. */
uint32_t rl_lane_pass(struct rl_lane *lane);

/* Settle what queue's worker held when it ended, then attach `fresh` as the
 * rings of `generation`; with `fresh` NULL the queue has no worker from here. */
void rl_lane_renew(struct rl_lane *lane, uint32_t queue, struct rl_rings_segment *fresh,
                   uint32_t generation, struct rl_settlement *result);

/* Count the ledger and publish the balances. `posted` is, per port, how many
 * descriptors hold buffers, counted from the descriptor rings. `seen`, when not
 * NULL, has counted every buffer on descriptor rings: the free list and the
 * workers' are added here and what is missing or doubled is told. */
void rl_lane_balance(struct rl_lane *lane, const uint32_t *posted, uint8_t *seen);

/* Packets with workers and on TX rings now, by the ledger; blanks count once they are sent. */
uint32_t rl_lane_in_flight(const struct rl_lane *lane);
#endif
