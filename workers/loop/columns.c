/* Columns over a batch, for plugins in Python: one call per field for all packets. NumPy's
 * own indexing takes ten times as long. */
#include "loop.h"
#include "../plugin.h"

void rl_batch_gather(const struct rl_batch *batch, uint32_t offset, uint32_t bytes, uint8_t *rows)
{
    for (uint32_t i = 0; i < batch->count; i++, rows += bytes) {
        const struct rl_reference *packet = batch->packets + i;
        uint32_t there = packet->length > offset ? packet->length - offset : 0;
        if (there < bytes)
            memset(rows + there, 0, bytes - there);
        else
            there = bytes;
        memcpy(rows, rl_frame(batch, packet) + offset, there);
    }
}

void rl_batch_scatter(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                      const uint8_t *rows)
{
    for (uint32_t i = 0; i < batch->count; i++, rows += bytes) {
        const struct rl_reference *packet = batch->packets + i;
        uint32_t there = packet->length > offset ? packet->length - offset : 0;
        memcpy(rl_frame(batch, packet) + offset, rows, there < bytes ? there : bytes);
    }
}

uint8_t *rl_batch_create(struct rl_batch *batch, uint32_t length, uint32_t port)
{
    return rl_create(batch, length, port);
}
