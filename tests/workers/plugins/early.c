/* A batch function that sets only the first verdict, as compiled Python would do after
 * an uncaught exception. */
#include "plugin.h"

static void early_batch(struct rl_batch *batch)
{
    if (batch->count)
        batch->packets[0].port = 0;
}
struct rl_plugin early = {RL_PLUGIN_ABI, sizeof(struct rl_batch), 0, early_batch, 0, NULL};
