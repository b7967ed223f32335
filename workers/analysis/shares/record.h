/* A packet of a share: an enhanced packet block of pcapng in our byte order, with its ID
 * (epb_packetid) as the only option. Source: draft-ietf-opsawg-pcapng, 4.3.
 *
 * The time is in nanoseconds. One before 1970 has no place in a block, so it belongs to interface
 * 1, whose times have an offset (spill.py). */
#ifndef RINGLINE_WORKERS_RECORD_H
#define RINGLINE_WORKERS_RECORD_H
#include "share.h"

#include <string.h>

#define RL_EARLY 9223372037000000000u /* what interface 1 takes off */

struct rl_record {
    int64_t time;
    uint64_t id;
    uint64_t bytes;
};

/* The block of a frame of so many bytes. */
static inline uint64_t rl_record_bytes(uint32_t captured)
{
    return RL_RECORD_BYTES + ((captured + 3) & ~3u);
}

/* Write the block; returns its bytes. */
static inline uint64_t rl_record_put(uint8_t *to, const uint8_t *frame, uint32_t captured,
                                     uint32_t original, int64_t time, uint64_t id)
{
    uint32_t bytes = (uint32_t)rl_record_bytes(captured), early = time < 0;
    uint64_t stamp = (uint64_t)time + (early ? RL_EARLY : 0);
    uint32_t head[7] = {6,        bytes,   early, (uint32_t)(stamp >> 32), (uint32_t)stamp,
                        captured, original};
    uint32_t tail[5] = {8u << 16 | 5, (uint32_t)id, (uint32_t)(id >> 32), 0, bytes};
    memset(to + bytes - sizeof tail - 4, 0, 4); /* what the frame leaves of its last word */
    memcpy(to, head, sizeof head);
    memcpy(to + sizeof head, frame, captured);
    memcpy(to + bytes - sizeof tail, tail, sizeof tail);
    return bytes;
}

/* Read the time, the ID and the bytes of the block at `at`. */
static inline struct rl_record rl_record_at(const uint8_t *at)
{
    uint32_t head[5];
    struct rl_record record;
    memcpy(head, at, sizeof head);
    record.bytes = head[1];
    record.time = (int64_t)(((uint64_t)head[3] << 32 | head[4]) - (head[2] ? RL_EARLY : 0));
    memcpy(&record.id, at + head[1] - 16, sizeof record.id);
    return record;
}
#endif
