/* Packets of a capture in C: see scan.h.
 *
 * Guarantees (tests in tests/workers/captures/test_scan.py):
 *  - it gives the frames, lengths and times that the readers in Python give, whatever the file
 *    (test_both_readers_agree_on_every_sample, test_both_readers_agree_on_damaged_files)
 *  - it reads nothing outside the window and writes nothing outside a buffer
 *    (test_no_access_outside_and_nothing_undefined) */
#include "scan.h"

#include <string.h>

#define SECOND 1000000000
#define ENHANCED 6

static uint32_t number(const struct rl_scan *scan, uint64_t at)
{
    uint32_t value;
    memcpy(&value, scan->data + at, sizeof value);
    return scan->swap ? __builtin_bswap32(value) : value;
}

void rl_scan_reference(struct rl_reference *packet, uint32_t number, uint64_t captured,
                       uint64_t original)
{
    *packet = (struct rl_reference){
        .buffer = number * RL_SCAN_UNITS,
        .offset = RL_BUFFER_HEADROOM,
        .length = (uint16_t)(captured < RL_SCAN_FRAME_MAX ? captured : RL_SCAN_FRAME_MAX),
        .rss_hash = (uint32_t)original,
        .flags = RL_FLAG_WIRE_LENGTH,
    };
}

/* A packet as it stands in the window. */
struct found {
    uint64_t body; /* its first byte */
    uint64_t next; /* the packet or block behind it */
    uint32_t captured;
    uint32_t original;
    int64_t time;
};

/* Look at the packet at `at`; returns RL_SCAN_FULL when it is one that C can take. */
static uint32_t look_at_pcap(const struct rl_scan *scan, struct found *found)
{
    uint64_t left = scan->size - scan->at;
    if (left < 16)
        return RL_SCAN_MORE;
    found->captured = number(scan, scan->at + 8);
    found->original = number(scan, scan->at + 12);
    if (!found->captured || found->captured > found->original ||
        found->captured > RL_SCAN_PACKET_MAX)
        return RL_SCAN_ODD;
    if (left - 16 < found->captured)
        return RL_SCAN_MORE;
    found->body = scan->at + 16;
    found->next = found->body + found->captured;
    found->time = (int64_t)number(scan, scan->at) * SECOND +
                  (int64_t)(number(scan, scan->at + 4) * scan->unit);
    return RL_SCAN_FULL;
}

/* The time in nanoseconds since 1970; 0 when Python must compute it. */
static int time_of(const struct rl_scan_interface *interface, uint64_t stamp, int64_t *time)
{
    if (!interface->units)
        return 0;
    unsigned __int128 scaled = (unsigned __int128)stamp * SECOND / interface->units;
    if (scaled > INT64_MAX)
        return 0;
    return !__builtin_add_overflow((int64_t)scaled, interface->offset, time);
}

/* The same for a block; `captured` is 0 for one that has no packet and is passed over. */
static uint32_t look_at_pcapng(const struct rl_scan *scan, struct found *found)
{
    uint64_t left = scan->size - scan->at;
    if (left < 12)
        return RL_SCAN_MORE;
    uint32_t kind = number(scan, scan->at), length = number(scan, scan->at + 4);
    /* A section (the same in both byte orders), an interface, the obsolete and the simple packet.
     */
    if (kind == 0x0A0D0D0A || kind == 1 || kind == 2 || kind == 3 || length < 12 || length % 4 ||
        length > RL_SCAN_BLOCK_MAX)
        return RL_SCAN_ODD;
    if (left < length)
        return RL_SCAN_MORE;
    if (number(scan, scan->at + length - 4) != length)
        return RL_SCAN_ODD;
    found->next = scan->at + length;
    found->captured = 0;
    if (kind != ENHANCED)
        return RL_SCAN_FULL;
    if (length < 32)
        return RL_SCAN_ODD;
    uint32_t which = number(scan, scan->at + 8);
    found->captured = number(scan, scan->at + 20);
    found->original = number(scan, scan->at + 24);
    found->body = scan->at + 28;
    if (which >= scan->interfaces || !found->captured || found->captured > found->original ||
        found->captured > RL_SCAN_PACKET_MAX || found->captured > length - 32)
        return RL_SCAN_ODD;
    uint64_t stamp = (uint64_t)number(scan, scan->at + 12) << 32 | number(scan, scan->at + 16);
    return time_of(scan->interface + which, stamp, &found->time) ? RL_SCAN_FULL : RL_SCAN_ODD;
}

/* Copy a frame of `length` bytes. A short one is copied as two whole cache lines, if the window has
 * them: a call of memcpy with a variable length takes longer. */
static void copy(const struct rl_scan *scan, uint8_t *to, uint64_t body, uint32_t length)
{
    const uint8_t *from = scan->data + body;
    if (length <= 128 && scan->size - body >= 128) {
        memcpy(to, from, 64);
        if (length > 64)
            memcpy(to + 64, from + 64, 64);
    } else {
        memcpy(to, from, length);
    }
}

/* Let a reference name the frame where it is, or copy the frame to the buffer that it names. */
static void place(const struct rl_scan *scan, struct rl_reference *packet, uint64_t body)
{
    if (scan->data == scan->own) {
        uint64_t at = (uint64_t)(scan->own - scan->memory) + body;
        packet->buffer = (uint32_t)(at / RL_BUFFER_STRIDE);
        packet->offset = (uint16_t)(at % RL_BUFFER_STRIDE);
    } else {
        uint8_t *to = scan->memory + (size_t)packet->buffer * RL_BUFFER_STRIDE + packet->offset;
        copy(scan, to, body, packet->length);
    }
}

/* Whether a tick is due before a packet with this time (Ticks.are_due in trials/harness.py). */
int rl_scan_tick_is_due(struct rl_scan *scan, int64_t time)
{
    if (!scan->ticks)
        return 0;
    int64_t earliest;
    if (__builtin_sub_overflow(scan->tick_at, SECOND, &earliest))
        earliest = INT64_MIN;
    if (!scan->ticking || time < earliest) {
        if (__builtin_add_overflow(time, SECOND, &scan->tick_at))
            scan->tick_at = INT64_MAX;
        scan->ticking = 1;
    }
    return time >= scan->tick_at;
}

static void count(struct rl_scan *scan, const struct found *found)
{
    scan->packets++;
    scan->bytes += found->original;
    scan->cut += found->captured < found->original;
    scan->clipped += found->captured > RL_SCAN_FRAME_MAX;
    if (!found->time) /* it has none */
        return;
    if (!scan->begun)
        scan->first = found->time;
    scan->backward += scan->timed && found->time < scan->last;
    scan->last = found->time;
    scan->begun = scan->timed = 1;
}

uint32_t rl_scan(struct rl_scan *scan, struct rl_reference *packets, int64_t *times, uint32_t room,
                 uint32_t *why)
{
    uint32_t n = 0;
    struct found found = {0};
    for (;;) {
        if (scan->at >= scan->stop) {
            *why = RL_SCAN_STOP;
            return n;
        }
        if (n == room) {
            *why = RL_SCAN_FULL;
            return n;
        }
        *why = !scan->usual             ? RL_SCAN_ODD
               : scan->at >= scan->size ? RL_SCAN_MORE
               : scan->pcapng           ? look_at_pcapng(scan, &found)
                                        : look_at_pcap(scan, &found);
        if (*why != RL_SCAN_FULL)
            return n;
        if (found.captured) {
            if (rl_scan_tick_is_due(scan, found.time)) {
                *why = RL_SCAN_TICK;
                return n;
            }
            rl_scan_reference(packets + n, n, found.captured, found.original);
            place(scan, packets + n, found.body);
            times[n++] = found.time;
            count(scan, &found);
        }
        scan->at = found.next;
    }
}

/* The length of the packet or block at `at` with its header, if there can be one; else 0. */
static uint64_t plausible(const struct rl_scan *scan, uint64_t at, uint32_t seconds)
{
    if (scan->pcapng) {
        uint32_t kind = number(scan, at), length = number(scan, at + 4);
        int known = kind == 0x0A0D0D0A || (kind && kind < 0x20) || kind >> 30 == 1 ||
                    (kind & 0x7FFFFFFF) == 0x0BAD;
        if (!known || length < 12 || length % 4 || length > RL_SCAN_BLOCK_MAX)
            return 0;
        if (scan->size - at >= length && number(scan, at + length - 4) != length)
            return 0;
        return length;
    }
    uint32_t captured = number(scan, at + 8), original = number(scan, at + 12);
    int64_t apart = (int64_t)number(scan, at) - seconds;
    if (!captured || captured > original || original > RL_SCAN_PACKET_MAX ||
        number(scan, at + 4) >= SECOND / scan->unit || apart > 31622400 || apart < -31622400)
        return 0;
    return 16 + (uint64_t)captured;
}

int64_t rl_probe(const struct rl_scan *scan, int whole, uint32_t seconds)
{
    uint64_t least = scan->pcapng ? 12 : 16;
    /* Blocks begin at a multiple of 4 bytes in the file, but the window need not. */
    for (uint64_t begin = scan->at; begin + least <= scan->size; begin++) {
        uint64_t at = begin;
        uint32_t chain = 0;
        while (chain < RL_PROBE_CHAIN && at + least <= scan->size) {
            uint64_t length = plausible(scan, at, seconds);
            if (!length)
                break;
            at += length;
            chain++;
        }
        if (chain == RL_PROBE_CHAIN || (whole && chain && at == scan->size))
            return (int64_t)begin;
    }
    return -1;
}
