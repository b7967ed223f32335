/* The arguments of a plugin's batch function. Plain declarations: the C compiler
 * and cffi both read this file. Plugin authors include plugin.h, which includes it. */
#ifndef RINGLINE_WORKERS_BATCH_H
#define RINGLINE_WORKERS_BATCH_H
#include "../shm/types.h"

#define RL_PLUGIN_ABI 2

/* The plugin's verdict is neither a port of this instance, a drop nor a drop reason. The worker
 * loop counts it and replaces it by RL_VERDICT_ERROR. */
#define RL_VERDICT_INVALID 253

/* Up to RL_BATCH_MAX packets, followed by room for RL_BATCH_MAX created packets. */
struct rl_batch {
    uint8_t *memory; /* packet memory: buffer i begins at i * RL_BUFFER_STRIDE */
    struct rl_reference *packets;
    uint32_t count;              /* packets; `packets[i].port` in: input port, out: verdict */
    uint32_t created;            /* packets created so far; the first is packets[count] */
    struct rl_reference *blanks; /* a stack of empty buffers for created packets */
    uint32_t blank_count;
    uint32_t ports;  /* number of ports: the verdicts 0 … ports - 1 send */
    uint32_t queue;  /* this worker's number */
    uint32_t judged; /* set it to `count` last: else every packet is an error */
    void *state;     /* the state that setup returned, or the plugin's named state */
    /* times[i]: when packets[i] came, in nanoseconds since 1970; for a created packet there is
     * none. NULL unless the plugin declares that it reads times. */
    const int64_t *times;
    /* How many drop reasons are named: RL_VERDICT_REASON … + `reasons` - 1 drop a packet. */
    uint32_t reasons;
    uint16_t frame_max; /* bytes of the longest frame that can be sent, its VLAN tag included */
    uint16_t room;      /* bytes of a buffer */
};

/* Called once per batch: that costs 1.4 ns per packet, a call per packet through a
 * pointer would cost 2.6 ns. The function writes each packet's verdict to `port` and then
 * sets `judged` to `count`. If a compiled function ends early by an exception,
 * `judged` stays 0, so the input ports still in `port` are not taken for verdicts. */
typedef void (*rl_batch_function)(struct rl_batch *batch);

/* The only symbol that a C plugin exports; RL_PLUGIN in plugin.h defines it. */
struct rl_plugin {
    uint32_t abi;         /* the RL_PLUGIN_ABI that it was compiled with */
    uint32_t batch_bytes; /* sizeof(struct rl_batch) when it was compiled */
    uint64_t state_bytes; /* of named state: zeros at first, kept through a crash */
    rl_batch_function function;
    uint64_t flags;             /* RL_PLUGIN_READS_TIMES or 0 */
    const char *const *reasons; /* the names of its drop reasons, then NULL; or NULL */
};
#define RL_PLUGIN_READS_TIMES 1
#endif
