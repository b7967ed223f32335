/* Columns over a batch, for plugins in Python: one call per field for all packets. NumPy's
 * own indexing takes ten times as long. */
#include "loop.h"
#include "../plugin.h"

static inline void gather(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                          uint8_t *rows)
{
    for (uint32_t i = 0; i < batch->count; i++, rows += bytes) {
        const struct rl_reference *packet = batch->packets + i;
        const uint8_t *from = rl_frame(batch, packet) + offset;
        if ((uint64_t)offset + bytes <= packet->length) {
            memcpy(rows, from, bytes);
        } else {
            uint32_t there = packet->length > offset ? packet->length - offset : 0;
            memcpy(rows, from, there);
            memset(rows + there, 0, bytes - there);
        }
    }
}

static inline void scatter(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                           const uint8_t *rows)
{
    for (uint32_t i = 0; i < batch->count; i++, rows += bytes) {
        const struct rl_reference *packet = batch->packets + i;
        uint8_t *to = rl_frame(batch, packet) + offset;
        if ((uint64_t)offset + bytes <= packet->length)
            memcpy(to, rows, bytes);
        else if (packet->length > offset)
            memcpy(to, rows, packet->length - offset);
    }
}

/* Call `copy` with a constant width for the usual fields: memcpy is then one or two moves. */
#define WITH_WIDTH(copy)                                                                           \
    (bytes == 1   ? copy(batch, offset, 1, rows)                                                   \
     : bytes == 2 ? copy(batch, offset, 2, rows)                                                   \
     : bytes == 4 ? copy(batch, offset, 4, rows)                                                   \
     : bytes == 6 ? copy(batch, offset, 6, rows)                                                   \
                  : copy(batch, offset, bytes, rows))

void rl_batch_gather(const struct rl_batch *batch, uint32_t offset, uint32_t bytes, void *rows)
{
    WITH_WIDTH(gather);
}

void rl_batch_scatter(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                      const void *rows)
{
    WITH_WIDTH(scatter);
}

uint8_t *rl_batch_create(struct rl_batch *batch, uint32_t length, uint32_t port)
{
    return rl_create(batch, length, port);
}
