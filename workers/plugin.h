/* The API for plugins in C. A plugin is a function that ringline calls for each packet:
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
 * `frame` points to the first byte of the packet, `meta->length` is its length in bytes,
 * `meta->port` its input port. `batch->ports` is the number of ports, `batch->queue` the
 * worker's number, `batch->state` the plugin's state.
 *
 * The function returns the number of the port to send to, RL_VERDICT_DROP, or a drop reason: a
 * number of `worker.drop_reason`, or rl_drop_reason(i) for the name number i, from 0, that
 * RL_PLUGIN_WITH_REASONS lists. Any other value drops the packet and is counted as an error.
 *
 * The function may write to the frame and set meta->vlan_tci and meta->flags. It may change
 * meta->offset and meta->length while the frame stays within its buffer, which has
 * batch->room bytes. Frames of RL_FRAME_MIN to batch->frame_max bytes can be sent, with the VLAN
 * tag that the card inserts. It must not change meta->buffer: the driver refuses a buffer that this
 * worker does not hold.
 *
 * headers/headers.h finds the headers of a frame, headers/checksums.h computes, updates and fixes
 * its checksums; they are included here.
 * lookup/lookup.h looks up addresses and keys in the prefix tables and maps that Python made.
 *
 * A function that also wants to know when the packet came has a fourth argument, and is defined
 * with RL_PLUGIN_WITH_TIME. `time` is in nanoseconds since 1970: when the driver took the packet
 * from the card, or the card's own time stamp; in `ringline try` the time in the capture. By the
 * driver's clock it does not run back while the worker lives.
 *
 *     static inline int64_t late(uint8_t *frame, struct rl_reference *meta,
 *                                struct rl_batch *batch, int64_t time)
 *     {
 *         return time < 1800000000000000000 ? meta->port : RL_VERDICT_DROP;
 *     }
 *     RL_PLUGIN_WITH_TIME(late_plugin, late, 0)
 *
 * Compile it to a shared object with -I of ringline.workers.api.include_directory(); its
 * name in the configuration is then `./file.so:reflect_plugin`. */
#ifndef RINGLINE_WORKERS_PLUGIN_H
#define RINGLINE_WORKERS_PLUGIN_H
#include "batch.h"
#include "headers/checksums.h"
#include "lookup/lookup.h"

#include <string.h>

/* The first byte of `packet`. */
static inline uint8_t *rl_frame(const struct rl_batch *batch, const struct rl_reference *packet)
{
    return batch->memory + (size_t)packet->buffer * RL_BUFFER_STRIDE + packet->offset;
}

/* How many bytes the packet had on the wire. In an analysis of captures that can be more than
 * `length`: many programs write only the first bytes of a packet. */
static inline uint32_t rl_wire_length(const struct rl_reference *packet)
{
    return packet->flags & RL_FLAG_WIRE_LENGTH ? packet->rss_hash : packet->length;
}

/* Whether the verdict is one of `reasons` drop reasons. */
static inline int rl_verdict_is_reason(int64_t verdict, uint32_t reasons)
{
    return verdict >= RL_VERDICT_REASON && verdict < RL_VERDICT_REASON + (int64_t)reasons;
}

/* The verdict as 8 bits of a reference. The check comes before the conversion: 256 must not
 * become port 0. */
static inline uint8_t rl_verdict(int64_t verdict, const struct rl_batch *batch)
{
    if ((verdict >= 0 && verdict < (int64_t)batch->ports) || verdict == RL_VERDICT_DROP ||
        rl_verdict_is_reason(verdict, batch->reasons))
        return (uint8_t)verdict;
    return RL_VERDICT_INVALID;
}

/* The verdict that drops a packet for the reason number `index` of RL_PLUGIN_WITH_REASONS. */
static inline int64_t rl_drop_reason(uint32_t index)
{
    return (int64_t)RL_VERDICT_REASON + index;
}

/* Create a packet of `length` bytes and send it to `port`. Returns its first byte; its
 * content is undefined, so fill all of it. Returns NULL when no blank buffer is left, when
 * RL_BATCH_MAX packets were created for this batch, when there is no such port, or when
 * `length` is outside RL_FRAME_MIN … batch->frame_max. Created packets are sent after the
 * packets of the batch, in order. */
static inline uint8_t *rl_create(struct rl_batch *batch, uint32_t length, uint32_t port)
{
    if (!batch->blank_count || batch->created == RL_BATCH_MAX || port >= batch->ports ||
        length < RL_FRAME_MIN || length > batch->frame_max)
        return NULL;
    struct rl_reference *packet = batch->packets + batch->count + batch->created++;
    *packet = batch->blanks[--batch->blank_count];
    packet->offset = RL_BUFFER_HEADROOM;
    packet->length = (uint16_t)length;
    packet->port = (uint8_t)port;
    return rl_frame(batch, packet);
}

/* Define the plugin `name` from a `static inline` function for one packet. batch->state
 * points to `bytes` bytes of named state: zeros at first, kept through a crash. */
#define RL_PLUGIN_WITH_STATE(name, packet_function, bytes)                                         \
    RL_PLUGIN_OF(name, RL_CALL(packet_function), bytes, 0, NULL)
/* The same without named state. */
#define RL_PLUGIN(name, packet_function) RL_PLUGIN_WITH_STATE(name, packet_function, 0)
/* The same for a function with a fourth argument, the time of the packet. */
#define RL_PLUGIN_WITH_TIME(name, packet_function, bytes)                                          \
    RL_PLUGIN_OF(name, RL_CALL_TIMED(packet_function), bytes, RL_PLUGIN_READS_TIMES, NULL)
/* The same with drop reasons, whose names are strings: at most RL_REASONS_MAX, each a letter and
 * then up to 46 letters, digits and _. */
#define RL_PLUGIN_WITH_REASONS(name, packet_function, bytes, ...)                                  \
    static const char *const name##_reasons[] = {__VA_ARGS__, NULL};                               \
    RL_PLUGIN_OF(name, RL_CALL(packet_function), bytes, 0, name##_reasons)
/* The same with the time of the packet and with drop reasons. */
#define RL_PLUGIN_WITH_TIME_AND_REASONS(name, packet_function, bytes, ...)                         \
    static const char *const name##_reasons[] = {__VA_ARGS__, NULL};                               \
    RL_PLUGIN_OF(name, RL_CALL_TIMED(packet_function), bytes, RL_PLUGIN_READS_TIMES, name##_reasons)

/* For the macros above: `verdict` is the call for packet number i. `times` is a copy, since a
 * store to a frame could change the original. */
#define RL_CALL(packet_function) packet_function(rl_frame(batch, meta), meta, batch)
#define RL_CALL_TIMED(packet_function) packet_function(rl_frame(batch, meta), meta, batch, times[i])
#define RL_PLUGIN_OF(name, verdict, bytes, flags, names)                                           \
    static void name##_batch(struct rl_batch *batch)                                               \
    {                                                                                              \
        const int64_t *times = batch->times;                                                       \
        (void)times;                                                                               \
        for (uint32_t i = 0; i < batch->count; i++) {                                              \
            struct rl_reference *meta = batch->packets + i;                                        \
            meta->port = rl_verdict(verdict, batch);                                               \
        }                                                                                          \
        batch->judged = batch->count;                                                              \
    }                                                                                              \
    __attribute__((visibility("default"))) struct rl_plugin name = {                               \
        RL_PLUGIN_ABI, sizeof(struct rl_batch), bytes, name##_batch, flags, names};
#endif
