/* The lane: one packet loop over all queues of all ports, with its free list, ledger, rings and
 * counters. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_LANE_H
#define RINGLINE_LANE_H
#include "../ports/port.h"

/* Consecutive empty passes before the first longer pause; of one queue, before it may rest. */
#define RL_EMPTY_PASSES 64

/* Ledger words that Python writes before the lane starts. */
#define RL_LEDGER_UNUSABLE_WORD 0x00000000
#define RL_LEDGER_FREE_WORD 0x10000000

/* The lane's state of a worker slot, in private memory. */
struct rl_lane_slot {
    struct rl_ring_end in;
    struct rl_ring_end out;
    struct rl_times *times; /* of the packets on `in`; NULL without a worker */
    uint32_t attached;      /* 0: no worker; packets that arrive are dropped as no_worker */
    uint32_t faulty;        /* 1: the lane ignores its rings (rl_slot_fault) */
    uint32_t generation;
    uint32_t blanks;      /* how many blanks the worker should hold */
    uint32_t sampled;     /* the buffer whose latency is measured, or RL_NO_BUFFER */
    uint32_t wake_due;    /* 1: a wake-up is delayed until may_wake_at */
    uint32_t quiet;       /* passes since the last one that moved a packet of the queue */
    uint64_t sampled_at;  /* ticks */
    uint64_t may_wake_at; /* ticks: earliest time of the next wake-up */
    uint64_t rests_until; /* ticks: until then the queue may be left out */
};

/* A device model that runs in the driver: the lane calls `step` once per pass. It returns how
 * much it did; 0: nothing. */
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
    uint32_t queues;        /* number of workers */
    uint32_t receiving;     /* 0: takes no packets from the cards and grants no blanks */
    uint32_t adaptive;      /* 0: spins, never sleeps */
    uint32_t yielding;      /* 1: the core is shared; the lane yields after each empty pass */
    uint32_t sleep_ns;      /* length of a sleep */
    uint32_t deep_sleep_ns; /* length of a deep sleep; at most sleep_ns: no deep sleep */
    uint64_t pause_after;   /* ticks without progress before longer pauses, */
    uint64_t sleep_after;   /* before sleep, */
    uint64_t deep_after;    /* and before deep sleep */
    uint64_t wake_interval; /* ticks between two wake-ups of one worker */
    uint64_t rest;          /* ticks: how long an empty queue is left out while others are busy */
    uint64_t ticks_per_64ns_shifted; /* ticks in 64 ns, times 2^16: for latency buckets */
    int32_t calls; /* a descriptor that is readable when the driver is wanted elsewhere; -1: none */
    int64_t clock_offset; /* ns: CLOCK_MONOTONIC plus this is the time of a packet; only grows */
    uint64_t progress_at; /* ticks: start of the last pass in which the lane or a model worked */
    /* The fields below belong to lane.c. */
    uint64_t pass_at;      /* ticks: start of the last pass */
    uint64_t modelled_for; /* ticks of the last pass inside device models */
    uint32_t request_seen; /* the last `request` of the supervisor */
    uint32_t moved;        /* packets moved by the last pass */
    uint32_t empty_passes;
    uint32_t may_rest; /* not 0: the last pass moved packets, so quiet queues may rest now */
    uint32_t armed;    /* one bit for each port: its card will count up its eventfd */
    uint32_t called;   /* 1: the descriptor `calls` is readable */
};

/* The result of a settlement: how many references of the dead worker ended in which way. */
struct rl_settlement {
    uint64_t returned; /* complete on `out`: transmitted or dropped as the plugin decided */
    uint64_t carried;  /* never popped: moved to the successor, in order */
    uint64_t lost;     /* still the worker's after that, blanks included: freed */
    uint64_t refused;  /* never popped, and no successor: freed */
};

/* Run passes, at least one, until the clock reaches `until` (ticks) or the supervisor increments
 * `request`. Returns how many packets moved: 0 means that nothing was left to move. */
uint64_t rl_lane_run(struct rl_lane *lane, uint64_t until);

/* A pass moved nothing: wait. Returns how many packets another pass moved meanwhile, mostly 0. */
uint32_t rl_lane_wait(struct rl_lane *lane, uint64_t until);

/* One pass over models, queues and ports. Returns how many packets moved. */
uint32_t rl_lane_pass(struct rl_lane *lane);

/* The worker published an index out of range, or it holds too many references (HELD_MAX). The lane
 * ignores its rings until the supervisor, which reads the counter, has replaced it. */
void rl_slot_fault(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue);

/* Refuse one reference, and count why. If its buffer is the worker's, the packet is dropped;
 * otherwise the buffer stays where it is. */
void rl_refuse(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
               const struct rl_reference *ref);

/* Settle the buffers of the queue's dead worker, if it had one, then attach `fresh` as the rings of
 * `generation`. With `fresh` NULL the queue has no worker from now on. */
void rl_lane_renew(struct rl_lane *lane, uint32_t queue, struct rl_rings_segment *fresh,
                   uint32_t generation, struct rl_settlement *result);

/* Count the balances and publish them: rl_balance_publish (balance.h) says what `posted` and
 * `seen` are. */
void rl_lane_balance(struct rl_lane *lane, const uint32_t *posted, uint8_t *seen);

/* Packets that workers hold or TX rings contain, by the ledger. A blank counts only when it is on
 * a TX ring. */
uint32_t rl_lane_in_flight(const struct rl_lane *lane);
#endif
