/* A batch function that ends before it judged: what an exception that nobody
 * caught would do in compiled Python. */
#include "plugin.h"

static void early_batch(struct rl_batch *batch)
{
    if (batch->count)
        batch->packets[0].port = 0;
}
struct rl_plugin early = {RL_PLUGIN_ABI, sizeof(struct rl_batch), 0, early_batch};
