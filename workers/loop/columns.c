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
void rl_batch_columns(const struct rl_batch *batch, uint32_t offset, uint32_t bytes, void *rows,
                      int back)
{
    uint8_t *row = rows;
    for (uint32_t i = 0; i < batch->count; i++, row += bytes) {
        const struct rl_reference *packet = batch->packets + i;
        uint8_t *field = rl_frame(batch, packet) + offset;
        uint32_t there = packet->length > offset ? packet->length - offset : 0;
        if (there >= bytes) {
            move(back ? field : row, back ? row : field, bytes);
        } else {
            memcpy(back ? field : row, back ? row : field, there);
            memset(row + there, 0, back ? 0 : bytes - there);
        }
    }
}
