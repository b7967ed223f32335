/* What a plugin's batch function is given. Plain declarations: C and cffi read
 * this file; authors of C plugins include plugin.h, which includes it. */
#ifndef RINGLINE_WORKERS_BATCH_H
#define RINGLINE_WORKERS_BATCH_H
#include "../shm/types.h"

#define RL_PLUGIN_ABI 1

/* The plugin answered what is neither a port of this instance nor a drop. The
 * worker loop counts it and makes it RL_VERDICT_ERROR. */
#define RL_VERDICT_INVALID 253

/* Up to RL_BATCH_MAX packets, and room behind them for as many created ones. */
struct rl_batch {
    uint8_t *memory; /* of all buffers: number i begins at i * RL_BUFFER_STRIDE */
    struct rl_reference *packets;
    uint32_t count;              /* of packets; `packets[i].port` in: input port, out: verdict */
    uint32_t created;            /* packets made so far; they follow, at packets[count] */
    struct rl_reference *blanks; /* a stack of buffers that a plugin may fill */
    uint32_t blank_count;
    uint32_t ports; /* 0 … ports - 1 are verdicts that send */
    uint32_t queue;
    uint32_t judged; /* set to `count` at the end: else no verdict counts */
    void *state;     /* what the plugin's setup made, or its named state */
};

/* Called once per batch: through a pointer that costs 1.4 ns a packet where a
 * call per packet costs 2.6. Must give every packet its verdict in `port`, and
 * say so in `judged`: a compiled function that ends early, by an exception that
 * nothing caught, must not leave input ports behind as verdicts. */
typedef void (*rl_batch_function)(struct rl_batch *batch);

/* The one symbol that a C plugin exports; see RL_PLUGIN in plugin.h. */
struct rl_plugin {
    uint32_t abi; /* RL_PLUGIN_ABI it was compiled with */
    uint32_t batch_bytes;
    uint64_t state_bytes; /* zeroed at first, kept through crashes and reloads */
    rl_batch_function function;
};
#endif
