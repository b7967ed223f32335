/* Divides the packets of a capture into shares by flow: see share.h.
 *
 * What a flow is: flow_key.py says the same for flow_stats. A fragment, the first one too, has no
 * ports: so fragments go with their addresses, as a card with RSS deals them out. */
#include "share.h"
#include "record.h"
#include "../../headers/headers.h"

#define FACTOR 0x9E3779B97F4A7C15 /* 2^64 / the golden ratio */

static uint64_t mixed(uint64_t hash, uint64_t word)
{
    uint64_t product = (hash ^ word) * FACTOR;
    return product ^ product >> 32;
}

/* The hash of one end: both ends are added, so that the direction does not matter. */
static uint64_t end_of(uint64_t high, uint64_t low, uint32_t port)
{
    return mixed(mixed(mixed(1, high), low), port);
}

static int has_ports(uint32_t protocol)
{
    return protocol == RL_TCP || protocol == RL_UDP || protocol == RL_SCTP;
}

static int extends(uint32_t protocol)
{
    return protocol == RL_HOP_BY_HOP || protocol == RL_ROUTING || protocol == RL_FRAGMENT ||
           protocol == RL_DESTINATION_OPTIONS || protocol == RL_MOBILITY;
}

static uint64_t hash_of(const uint8_t *frame, uint32_t length)
{
    uint32_t at = 14, type, protocol, ports = 0, whole = 1;
    uint64_t source[2] = {0}, target[2] = {0};
    if (length < at)
        return 0;
    for (type = rl_be16(frame + 12);
         (type == RL_TYPE_VLAN || type == RL_TYPE_SERVICE_VLAN) && length >= at + 4; at += 4)
        type = rl_be16(frame + at + 2);
    const uint8_t *ip = frame + at;
    if (type == RL_TYPE_IPV4 && length >= at + 20) {
        protocol = ip[9];
        whole = !(rl_be16(ip + 6) & 0x3FFF);
        source[1] = rl_be32(ip + 12);
        target[1] = rl_be32(ip + 16);
        at += 4 * (ip[0] & 15);
    } else if (type == RL_TYPE_IPV6 && length >= at + 40) {
        protocol = ip[6];
        for (int half = 0; half < 2; half++) {
            source[half] = rl_be64(ip + 8 + 8 * half);
            target[half] = rl_be64(ip + 24 + 8 * half);
        }
        at += 40;
        while (whole && extends(protocol) && length >= at + 8) {
            uint32_t bytes = protocol == RL_FRAGMENT ? 8 : 8 * (frame[at + 1] + 1u);
            if (protocol == RL_FRAGMENT)
                whole = !(rl_be16(frame + at + 2) & 0xFFF9);
            protocol = frame[at];
            at += bytes;
        }
    } else { /* the two stations, and what they speak */
        uint64_t to = rl_be64(frame) >> 16, from = rl_be64(frame + 4) & 0xFFFFFFFFFFFF;
        return mixed(end_of(0, to, 0) + end_of(0, from, 0), type);
    }
    if (whole && has_ports(protocol) && length >= at + 4)
        ports = rl_be32(frame + at);
    return mixed(end_of(source[0], source[1], ports >> 16) +
                     end_of(target[0], target[1], ports & 0xFFFF),
                 protocol);
}

uint32_t rl_share_of(const uint8_t *frame, uint32_t length, uint32_t count)
{
    return (uint32_t)((hash_of(frame, length) >> 32) * count >> 32);
}

static void note(struct rl_share *share, int64_t time)
{
    if (!share->bytes) {
        share->first = share->last = time;
        share->disordered = 0;
    } else {
        share->disordered |= time < share->newest;
        share->first = time < share->first ? time : share->first;
        share->last = time > share->last ? time : share->last;
    }
    share->newest = time;
}

uint32_t rl_share_run(struct rl_sharing *sharing)
{
    for (;;) {
        while (sharing->at < sharing->n) {
            const struct rl_reference *packet = sharing->packets + sharing->at;
            const uint8_t *frame =
                sharing->scan.memory + (uint64_t)packet->buffer * RL_BUFFER_STRIDE + packet->offset;
            uint32_t which = rl_share_of(frame, packet->length, sharing->count);
            struct rl_share *share = sharing->shares + which;
            uint64_t bytes = rl_record_bytes(packet->length);
            uint8_t *to = sharing->memory + which * sharing->room + share->bytes;
            sharing->full = which;
            sharing->bytes = bytes;
            if (bytes > sharing->room)
                to = sharing->sorted;
            else if (share->bytes + bytes > sharing->room)
                return RL_SHARE_FULL;
            int64_t time = sharing->time = sharing->times[sharing->at];
            uint64_t number = sharing->scan.packets - sharing->before - sharing->n + ++sharing->at;
            rl_record_put(to, frame, packet->length, packet->rss_hash, time,
                          sharing->range | number);
            if (bytes > sharing->room)
                return RL_SHARE_LARGE;
            note(share, time);
            share->bytes += bytes;
        }
        *sharing->progress = sharing->scan.packets;
        sharing->n = sharing->at = 0;
        uint32_t why = sharing->why;
        sharing->why = RL_SCAN_FULL;
        if (why != RL_SCAN_FULL)
            return why;
        sharing->n = rl_scan(&sharing->scan, sharing->packets, sharing->times, 64, &sharing->why);
    }
}

void rl_share_one(struct rl_sharing *sharing, uint64_t captured, uint64_t original, int64_t time)
{
    rl_scan_reference(sharing->packets, 0, captured, original);
    sharing->times[0] = time;
    sharing->n = 1;
    sharing->at = 0;
}

/* One packet to be sorted. */
struct place {
    int64_t time;
    uint64_t at;
    uint64_t bytes;
};

const uint8_t *rl_share_take(struct rl_sharing *sharing, uint32_t which)
{
    struct rl_share *share = sharing->shares + which;
    const uint8_t *chunk = sharing->memory + which * sharing->room;
    uint64_t bytes = share->bytes;
    share->bytes = 0;
    if (!share->disordered)
        return chunk;
    /* Clocks step back rarely and a little, so this moves few places; and a chunk is short. */
    struct place *places = (struct place *)sharing->places;
    uint64_t count = 0;
    for (uint64_t at = 0; at < bytes;) {
        struct rl_record record = rl_record_at(chunk + at);
        uint64_t to = count++;
        for (; to && places[to - 1].time > record.time; to--)
            places[to] = places[to - 1];
        places[to] = (struct place){record.time, at, record.bytes};
        at += record.bytes;
    }
    for (uint64_t i = 0, at = 0; i < count; at += places[i++].bytes)
        memcpy(sharing->sorted + at, chunk + places[i].at, places[i].bytes);
    return sharing->sorted;
}
