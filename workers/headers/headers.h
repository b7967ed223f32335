/* The headers of a frame, found once: struct rl_headers says where they are and what they hold.
 *
 * tiers/jit_headers.py does the same for compiled Python
 * (tests/workers/headers/test_headers.py: test_compiled_and_plain_find_the_same). */
#ifndef RINGLINE_WORKERS_HEADERS_H
#define RINGLINE_WORKERS_HEADERS_H
#include "types.h"

#include <string.h>

/* Numbers in network byte order, at any address. */
static inline uint16_t rl_be16(const uint8_t *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t rl_be32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint64_t rl_be64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return __builtin_bswap64(value);
}

/* Whether `protocol` is an IPv6 extension header that another header follows. */
static inline int rl_is_extension(uint32_t protocol)
{
    switch (protocol) {
    case RL_HOP_BY_HOP:
    case RL_ROUTING:
    case RL_FRAGMENT:
    case RL_AUTHENTICATION:
    case RL_DESTINATION_OPTIONS:
    case RL_MOBILITY:
    case RL_HOST_IDENTITY:
    case RL_SHIM6:
        return 1;
    default:
        return 0;
    }
}

/* Bytes of the extension header `protocol` that begins at `header` (RFC 8200 4, RFC 4302 2.2). */
static inline uint32_t rl_extension_bytes(const uint8_t *header, uint32_t protocol)
{
    if (protocol == RL_FRAGMENT)
        return 8;
    return protocol == RL_AUTHENTICATION ? 4 * (header[1] + 2u) : 8 * (header[1] + 1u);
}

/* The part of the view that the transport header at `at` holds. `limit` is the end of the packet
 * or of the frame, whichever comes first. */
static inline void rl_find_transport(const uint8_t *frame, uint32_t limit, uint32_t at,
                                     struct rl_headers *found)
{
    if (at >= limit || (found->version == 6 && found->protocol == RL_NO_NEXT_HEADER))
        return;
    uint32_t bytes = limit - at;
    uint32_t tcp_bytes;
    found->l4 = at;
    switch (found->protocol) {
    case RL_TCP:
        if (bytes >= 18)
            found->checksum_at = at + 16;
        tcp_bytes = bytes >= 20 ? 4u * (frame[at + 12] >> 4) : 0;
        if (tcp_bytes >= 20 && tcp_bytes <= bytes)
            found->payload = at + tcp_bytes;
        break;
    case RL_UDP:
        if (bytes >= 8) {
            found->checksum_at = at + 6;
            found->payload = at + 8;
        }
        break;
    case RL_SCTP:
        break;
    case RL_ICMP:
    case RL_ICMPV6:
        if (bytes >= 4 && (found->version == 4) == (found->protocol == RL_ICMP))
            found->checksum_at = at + 2;
        return;
    default:
        return;
    }
    if (bytes >= 4) {
        found->sport = rl_be16(frame + at);
        found->dport = rl_be16(frame + at + 2);
    }
}

static inline void rl_find_ipv4(const uint8_t *frame, uint32_t length, struct rl_headers *found)
{
    uint32_t at = (uint32_t)found->l3;
    if (at + 20 > length || frame[at] >> 4 != 4)
        return;
    uint32_t header_bytes = 4u * (frame[at] & 15);
    if (header_bytes < 20 || at + header_bytes > length)
        return;
    uint32_t end = at + rl_be16(frame + at + 2);
    uint32_t fragment = rl_be16(frame + at + 6) & 0x3FFF; /* more fragments, and the offset */
    found->version = 4;
    found->end = end;
    found->protocol = frame[at + 9];
    found->fragment = fragment != 0;
    found->src = rl_be32(frame + at + 12);
    found->dst = rl_be32(frame + at + 16);
    if ((fragment & 0x1FFF) == 0)
        rl_find_transport(frame, end < length ? end : length, at + header_bytes, found);
}

static inline void rl_find_ipv6(const uint8_t *frame, uint32_t length, struct rl_headers *found)
{
    uint32_t at = (uint32_t)found->l3;
    if (at + 40 > length || frame[at] >> 4 != 6)
        return;
    uint32_t end = at + 40 + rl_be16(frame + at + 4);
    uint32_t limit = end < length ? end : length;
    uint32_t protocol = frame[at + 6];
    found->version = 6;
    found->end = end;
    found->src_high = (int64_t)rl_be64(frame + at + 8);
    found->src = (int64_t)rl_be64(frame + at + 16);
    found->dst_high = (int64_t)rl_be64(frame + at + 24);
    found->dst = (int64_t)rl_be64(frame + at + 32);
    at += 40;
    while (rl_is_extension(protocol)) {
        if (at + 8 > limit) {
            found->protocol = protocol;
            return;
        }
        /* The offset and "more fragments". Both are 0 in a packet that is whole (RFC 6946). */
        uint32_t fragment = protocol == RL_FRAGMENT ? rl_be16(frame + at + 2) & 0xFFF9 : 0;
        uint32_t bytes = rl_extension_bytes(frame + at, protocol);
        protocol = frame[at];
        at += bytes;
        if (fragment)
            found->fragment = 1;
        if (fragment & 0xFFF8) {
            found->protocol = protocol;
            return;
        }
    }
    found->protocol = protocol;
    rl_find_transport(frame, limit, at, found);
}

/* The headers of the `length` bytes at `frame`. Reads only within them. */
static inline struct rl_headers rl_headers(const uint8_t *frame, uint32_t length)
{
    struct rl_headers found = {.vlan = -1};
    uint32_t at = 14;
    if (length < 14)
        return found;
    uint32_t type = rl_be16(frame + 12);
    while ((type == RL_TYPE_VLAN || type == RL_TYPE_SERVICE_VLAN) && at + 4 <= length) {
        if (found.vlan < 0)
            found.vlan = rl_be16(frame + at) & 0xFFF;
        type = rl_be16(frame + at + 2);
        at += 4;
    }
    found.ethertype = type;
    found.l3 = at;
    if (type == RL_TYPE_IPV4)
        rl_find_ipv4(frame, length, &found);
    else if (type == RL_TYPE_IPV6)
        rl_find_ipv6(frame, length, &found);
    return found;
}
#endif
