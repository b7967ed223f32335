/* Odd times are sent back, even ones are dropped. */
#include "plugin.h"

static inline int64_t odd(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch,
                          int64_t time)
{
    (void)frame, (void)batch;
    return time % 2 ? meta->port : RL_VERDICT_DROP;
}
RL_PLUGIN_WITH_TIME(odd_times, odd, 0)
