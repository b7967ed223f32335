/* The plugins that come with ringline, as a user would write them. */
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
    uint8_t destination[6];
    (void)batch;
    if (meta->length < 12)
        return RL_VERDICT_DROP;
    memcpy(destination, frame, 6);
    memmove(frame, frame + 6, 6);
    memcpy(frame + 6, destination, 6);
    return meta->port;
}
RL_PLUGIN(rl_mac_swap, mac_swap)
