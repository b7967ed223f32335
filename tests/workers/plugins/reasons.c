/* The plugin of test_drop_reasons.py in C: the frame's first byte is the verdict's low byte. */
#include "plugin.h"

static inline int64_t judge(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    (void)batch;
    if (frame[0] == 1)
        return rl_drop_reason(0);
    if (frame[0] == 2)
        return rl_drop_reason(1);
    return frame[0] ? frame[0] : meta->port;
}
RL_PLUGIN_WITH_REASONS(reasons, judge, 0, "acl", "ttl")
RL_PLUGIN_WITH_REASONS(twice, judge, 0, "acl", "acl")
RL_PLUGIN_WITH_REASONS(built_in, judge, 0, "missed")
