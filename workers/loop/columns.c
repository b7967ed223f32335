/* Columns over a batch, for plugins in Python: one call per field for all packets. NumPy's
 * own indexing takes ten times as long. */
#include "loop.h"
#include "../plugin.h"

/* With a constant width, as of the usual fields, memcpy is one or two moves. */
static inline void move(void *to, const void *from, uint32_t bytes)
{
    if (bytes == 6)
        memcpy(to, from, 6);
    else if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 2)
        memcpy(to, from, 2);
    else
        memcpy(to, from, bytes);
}

/* Copy a field of every packet to its row, or with `back` from its row. What lies behind the end of
 * a packet is 0 in its row, and is not written. */
static inline void copy(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                        uint8_t *rows, int back)
{
    for (uint32_t i = 0; i < batch->count; i++, rows += bytes) {
        const struct rl_reference *packet = batch->packets + i;
        uint8_t *field = rl_frame(batch, packet) + offset;
        uint32_t there = packet->length > offset ? packet->length - offset : 0;
        if (there >= bytes) {
            move(back ? field : rows, back ? rows : field, bytes);
        } else {
            memcpy(back ? field : rows, back ? rows : field, there);
            memset(rows + there, 0, back ? 0 : bytes - there);
        }
    }
}

void rl_batch_gather(const struct rl_batch *batch, uint32_t offset, uint32_t bytes, void *rows)
{
    copy(batch, offset, bytes, rows, 0);
}

void rl_batch_scatter(const struct rl_batch *batch, uint32_t offset, uint32_t bytes,
                      const void *rows)
{
    copy(batch, offset, bytes, (uint8_t *)rows, 1);
}

uint8_t *rl_batch_create(struct rl_batch *batch, uint32_t length, uint32_t port)
{
    return rl_create(batch, length, port);
}
