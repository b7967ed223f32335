/* The bare loop of bare_flows.h. */
#include "bare_flows.h"

#include <endian.h>
#include <string.h>
#include <unistd.h>

#define FILE_HEADER 24
#define RECORD_HEADER 16
#define MAGIC 0xA1B2C3D4
#define TCP 6
#define UDP 17
#define FACTOR 0x9E3779B97F4A7C15 /* 2^64 / the golden ratio */

static uint64_t word(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

static uint32_t half(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint32_t pair(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint64_t mix(uint64_t hashed, uint64_t value)
{
    uint64_t product = (hashed ^ value) * FACTOR;
    return product ^ product >> 29;
}

/* The addresses and the rest of the key from source to target, and where the header behind that of
 * IP begins; 0 when the frame is not IP. */
static uint32_t parse(const uint8_t *frame, uint32_t length, struct rl_bare_flow *key)
{
    if (length < 14)
        return 0;
    uint32_t at = 14, kind = pair(frame + 12), protocol, end;
    while ((kind == 0x8100 || kind == 0x88A8) && length >= at + 4) {
        kind = pair(frame + at + 2);
        at += 4;
    }
    int whole = 1;
    if (kind == 0x0800 && length >= at + 20) {
        protocol = frame[at + 9];
        whole = !(pair(frame + at + 6) & 0x3FFF);
        key->a[0] = key->b[0] = 0;
        key->a[1] = half(frame + at + 12);
        key->b[1] = half(frame + at + 16);
        key->rest = protocol << 8 | 4;
        end = at + 4 * (frame[at] & 15);
    } else if (kind == 0x86DD && length >= at + 40) {
        protocol = frame[at + 6];
        key->a[0] = word(frame + at + 8);
        key->a[1] = word(frame + at + 16);
        key->b[0] = word(frame + at + 24);
        key->b[1] = word(frame + at + 32);
        key->rest = protocol << 8 | 6;
        end = at + 40;
    } else {
        return 0;
    }
    if ((protocol == TCP || protocol == UDP) && whole && length >= end + 4)
        key->rest |= (uint64_t)half(frame + end) << 16;
    return end;
}

/* Let A be the smaller end; returns whether the ends changed their places. */
static int order(struct rl_bare_flow *key)
{
    uint64_t port_a = key->rest >> 32, port_b = key->rest >> 16 & 0xFFFF;
    int after = key->a[0] != key->b[0]   ? key->a[0] > key->b[0]
                : key->a[1] != key->b[1] ? key->a[1] > key->b[1]
                                         : port_a > port_b;
    if (!after)
        return 0;
    uint64_t high = key->a[0], low = key->a[1];
    key->a[0] = key->b[0];
    key->a[1] = key->b[1];
    key->b[0] = high;
    key->b[1] = low;
    key->rest = (key->rest & 0xFFFF) | port_a << 16 | port_b << 32;
    return 1;
}

/* The line of the flow, new or not; NULL when the table is full. */
static struct rl_bare_flow *find(struct rl_bare_flow *flows, uint64_t slots,
                                 const struct rl_bare_flow *key)
{
    uint64_t hashed =
        mix(mix(mix(mix(mix(0, key->a[0]), key->a[1]), key->b[0]), key->b[1]), key->rest);
    for (uint64_t i = 0, at = hashed >> 32; i < slots; i++, at++) {
        struct rl_bare_flow *flow = flows + (at & (slots - 1));
        if (flow->used == (hashed | 1) && flow->a[0] == key->a[0] && flow->a[1] == key->a[1] &&
            flow->b[0] == key->b[0] && flow->b[1] == key->b[1] && flow->rest == key->rest)
            return flow;
        if (!flow->used) {
            memcpy(flow, key, offsetof(struct rl_bare_flow, used));
            flow->used = hashed | 1;
            flow->first[0] = flow->first[1] = INT64_MAX;
            flow->last[0] = flow->last[1] = -INT64_MAX;
            return flow;
        }
    }
    return NULL;
}

/* Count a packet; returns 0 when the table is full. */
static int count(struct rl_bare_flow *flows, uint64_t slots, const uint32_t *record,
                 const uint8_t *frame)
{
    uint32_t length = record[2];
    struct rl_bare_flow key;
    uint32_t end = parse(frame, length, &key);
    if (!end)
        return 1;
    int way = order(&key);
    struct rl_bare_flow *flow = find(flows, slots, &key);
    if (!flow)
        return 0;
    int64_t time = (int64_t)record[0] * 1000000000 + (int64_t)record[1] * 1000;
    flow->packets[way]++;
    flow->bytes[way] += record[3];
    flow->first[way] = flow->first[way] < time ? flow->first[way] : time;
    flow->last[way] = flow->last[way] > time ? flow->last[way] : time;
    if ((key.rest >> 8 & 0xFF) == TCP && length > end + 13)
        flow->flags[way] |= frame[end + 13];
    return 1;
}

uint64_t rl_bare_flows(int fd, struct rl_bare_flow *flows, uint64_t slots, uint8_t *window,
                       uint64_t room)
{
    uint64_t packets = 0, at = 0, size = 0;
    uint32_t magic = 0;
    ssize_t got;
    while ((got = read(fd, window + size, room - size)) > 0) {
        size += (uint64_t)got;
        if (!magic) {
            memcpy(&magic, window, sizeof magic);
            if (size < FILE_HEADER || magic != MAGIC)
                return 0;
            at = FILE_HEADER;
        }
        while (size - at >= RECORD_HEADER) {
            uint32_t record[4];
            memcpy(record, window + at, sizeof record);
            if (size - at - RECORD_HEADER < record[2])
                break;
            if (!count(flows, slots, record, window + at + RECORD_HEADER))
                return 0;
            at += RECORD_HEADER + record[2];
            packets++;
        }
        memmove(window, window + at, size - at);
        size -= at;
        at = 0;
    }
    return packets;
}
