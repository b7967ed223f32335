/* For authors of plugins in C. A plugin is one function per packet:
 *
 *     #include "plugin.h"
 *
 *     static inline int64_t reflect(uint8_t *frame, struct rl_reference *meta,
 *                                   struct rl_batch *batch)
 *     {
 *         return meta->length < 60 ? RL_VERDICT_DROP : meta->port;
 *     }
 *     RL_PLUGIN(reflect_plugin, reflect)
 *
 * `frame` is the packet's first byte, `meta->length` its length. The answer is
 * the port to send to or RL_VERDICT_DROP; anything else drops the packet and is
 * counted. A function may write into the frame, set vlan_tci and flags, and
 * move offset and length within the buffer (RL_BUFFER_STRIDE bytes). It must
 * leave `meta->buffer` alone: the driver refuses a buffer that it did not hand
 * out. Compiled to a shared object it is named `./file.so:reflect_plugin`. */
#ifndef RINGLINE_WORKERS_PLUGIN_H
#define RINGLINE_WORKERS_PLUGIN_H
#include "batch.h"

#include <string.h>

static inline uint8_t *rl_frame(const struct rl_batch *batch, const struct rl_reference *packet)
{
    return batch->memory + (size_t)packet->buffer * RL_BUFFER_STRIDE + packet->offset;
}

/* The verdict as it goes into the 8 bits of a reference: checked, then narrowed. */
static inline uint8_t rl_verdict(int64_t verdict, uint32_t ports)
{
    if ((verdict >= 0 && verdict < (int64_t)ports) || verdict == RL_VERDICT_DROP)
        return (uint8_t)verdict;
    return RL_VERDICT_INVALID;
}

/* A new packet of `length` bytes for `port`, in a blank buffer: its first byte,
 * or NULL when no blank is left or it would not fit. Its bytes are whatever the
 * buffer last held. Packets of a batch leave in order, created ones last. */
static inline uint8_t *rl_create(struct rl_batch *batch, uint32_t length, uint32_t port)
{
    if (!batch->blank_count || batch->created == RL_BATCH_MAX || port >= batch->ports ||
        length < RL_FRAME_MIN || length > RL_FRAME_MAX)
        return NULL;
    struct rl_reference *packet = batch->packets + batch->count + batch->created++;
    *packet = batch->blanks[--batch->blank_count];
    packet->offset = RL_BUFFER_HEADROOM;
    packet->length = (uint16_t)length;
    packet->port = (uint8_t)port;
    return rl_frame(batch, packet);
}

/* Wraps a per-packet `static inline` function into the batch entry. State of
 * `bytes` bytes is at batch->state. */
#define RL_PLUGIN_WITH_STATE(name, packet_function, bytes)                                         \
    static void name##_batch(struct rl_batch *batch)                                               \
    {                                                                                              \
        for (uint32_t i = 0; i < batch->count; i++) {                                              \
            struct rl_reference *meta = batch->packets + i;                                        \
            meta->port =                                                                           \
                rl_verdict(packet_function(rl_frame(batch, meta), meta, batch), batch->ports);     \
        }                                                                                          \
        batch->judged = batch->count;                                                              \
    }                                                                                              \
    __attribute__((visibility("default"))) struct rl_plugin name = {                               \
        RL_PLUGIN_ABI, sizeof(struct rl_batch), bytes, name##_batch};
#define RL_PLUGIN(name, packet_function) RL_PLUGIN_WITH_STATE(name, packet_function, 0)
#endif
