/* The bundled plugins in C; they use only what plugin.h offers to every author. */
#include "plugins.h"

#include "../plugin.h"

static inline int64_t forward(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    (void)frame;
    return ((const uint8_t *)batch->state)[meta->port];
}
RL_PLUGIN(rl_forward, forward)

static inline int64_t drop(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    (void)frame, (void)meta, (void)batch;
    return RL_VERDICT_DROP;
}
RL_PLUGIN(rl_drop, drop)

static inline int64_t mac_swap(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    uint64_t head, first;
    uint32_t tail, last;
    (void)batch;
    if (meta->length < 12)
        return RL_VERDICT_DROP;
    /* Rotate the 12 bytes of both addresses by 6, with two loads and two stores. */
    memcpy(&head, frame, 8);
    memcpy(&tail, frame + 8, 4);
    first = head >> 48 | (uint64_t)tail << 16 | head << 48;
    last = (uint32_t)(head >> 16);
    memcpy(frame, &first, 8);
    memcpy(frame + 8, &last, 4);
    return meta->port;
}
RL_PLUGIN(rl_mac_swap, mac_swap)

static inline int64_t mac_swap_timed(uint8_t *frame, struct rl_reference *meta,
                                     struct rl_batch *batch, int64_t time)
{
    return time < 0 ? RL_VERDICT_DROP : mac_swap(frame, meta, batch);
}
RL_PLUGIN_WITH_TIME(rl_mac_swap_timed, mac_swap_timed, 0)
