/* Internet checksums: RFC 1071, incremental updates by RFC 1624, and those of a whole frame.
 *
 * tiers/jit_checksums.py does the same for compiled Python
 * (tests/workers/headers/test_checksums.py: test_compiled_and_plain_write_the_same). */
#ifndef RINGLINE_WORKERS_CHECKSUMS_H
#define RINGLINE_WORKERS_CHECKSUMS_H
#include "../../shm/types.h"
#include "headers.h"

/* A sum in 16 bits: the one's complement sum of its 16-bit words. To add a number to itself with
 * both halves exchanged leaves the sum of the halves, with the carry, in the upper half. */
static inline uint32_t rl_fold(uint64_t sum)
{
    sum += sum << 32 | sum >> 32;
    uint32_t half = (uint32_t)(sum >> 32);
    half += half << 16 | half >> 16;
    return half >> 16;
}

/* Add the 16-bit words of `bytes` to `sum`, which must be below 2^48. 65536 is 1 modulo 65535, so
 * words of 32 bits have the same sum. */
static inline uint64_t rl_add_words(uint64_t sum, const uint8_t *bytes, uint32_t length)
{
    uint32_t at = 0;
    for (; at + 4 <= length; at += 4)
        sum += rl_be32(bytes + at);
    if (length & 2) {
        sum += rl_be16(bytes + at);
        at += 2;
    }
    if (length & 1)
        sum += (uint32_t)bytes[at] << 8;
    return sum;
}

static inline void rl_put_be16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

/* The Internet checksum of `length` bytes (RFC 1071); an odd last byte is padded with zero.
 * `initial` is added first, for instance the sum of a pseudo header. The result is 0 for bytes
 * that contain their own correct checksum. */
static inline uint16_t rl_checksum(const uint8_t *bytes, uint32_t length, uint64_t initial)
{
    return (uint16_t)~rl_fold(rl_add_words(rl_fold(initial), bytes, length));
}

/* Whether the two bytes at `offset` are the checksum of the frame's UDP header, whose 0 means "no
 * checksum" (RFC 768). */
static inline int rl_is_udp_checksum(const uint8_t *frame, uint32_t length, uint32_t offset)
{
    struct rl_headers found = rl_headers(frame, length);
    return found.protocol == RL_UDP && found.checksum_at == offset;
}

/* Update the checksum at `offset` after a field was changed from `before` to `after` (RFC 1624,
 * equation 3). The field has 2, 4, 6 or 8 bytes and lies an even number of bytes after the first
 * byte that the checksum covers. A UDP checksum of 0 stays 0, and no UDP checksum becomes 0.
 * Returns 1; 0 if the checksum is not within the frame, which then stays as it is. */
static inline int rl_update_checksum(uint8_t *frame, uint32_t length, uint32_t offset,
                                     uint64_t before, uint64_t after)
{
    if (length < 2 || offset > length - 2)
        return 0;
    uint32_t old_checksum = rl_be16(frame + offset);
    uint64_t sum = (old_checksum ^ 0xFFFF) + (~before >> 32) + (uint32_t)~before + (after >> 32) +
                   (uint32_t)after;
    uint32_t checksum = rl_fold(sum) ^ 0xFFFF;
    /* Only a 0 differs between UDP and others, so the headers are rarely looked at. */
    if (__builtin_expect(old_checksum == 0 || checksum == 0, 0) &&
        rl_is_udp_checksum(frame, length, offset))
        checksum = old_checksum == 0 ? 0 : 0xFFFF;
    rl_put_be16(frame + offset, checksum);
    return 1;
}

/* The offset of the final destination of a packet, which its pseudo header has (RFC 8200 8.1);
 * 0 if the packet does not tell. */
static inline uint32_t rl_final_destination_ipv6(const uint8_t *frame,
                                                 const struct rl_headers *found)
{
    uint32_t protocol = frame[found->l3 + 6];
    uint32_t at = (uint32_t)found->l3 + 40;
    uint32_t destination = (uint32_t)found->l3 + 24;
    while (at < found->l4) {
        uint32_t bytes = rl_extension_bytes(frame + at, protocol);
        if (protocol == RL_ROUTING && frame[at + 3]) { /* segments left */
            uint32_t type = frame[at + 2];
            if (bytes < 24 || (type != 4 && bytes % 16 != 8))
                return 0;
            if (type == 0 || type == 2) /* RFC 5095, RFC 6275: the last address of the list */
                destination = at + bytes - 16;
            else if (type == 4) /* RFC 8754: the first entry of the list is the last segment */
                destination = at + 8;
            else
                return 0;
        }
        protocol = frame[at];
        at += bytes;
    }
    return destination;
}

/* The same for IPv4: a source route (RFC 791 3.1) that is not at its end yet hides the final
 * destination. */
static inline uint32_t rl_final_destination_ipv4(const uint8_t *frame,
                                                 const struct rl_headers *found)
{
    uint32_t at = (uint32_t)found->l3 + 20;
    uint32_t end = (uint32_t)found->l3 + 4 * (frame[found->l3] & 15u);
    while (at + 3 <= end && frame[at] != 0) {
        uint32_t kind = frame[at];
        uint32_t bytes = kind == 1 ? 1 : frame[at + 1];
        if ((kind == 131 || kind == 137) && frame[at + 2] <= bytes)
            return 0;
        if (bytes == 0)
            break;
        at += bytes;
    }
    return (uint32_t)found->l3 + 16;
}

/* Write the transport checksum. Returns whether it is right now. */
static inline int rl_fix_transport(uint8_t *frame, uint32_t length, const struct rl_headers *found)
{
    if (found->fragment || !found->checksum_at || found->end > length)
        return 0;
    uint8_t *header = frame + found->l4;
    uint8_t *checksum = frame + found->checksum_at;
    uint32_t bytes = (uint32_t)(found->end - found->l4);
    uint64_t sum = 0;
    if (found->protocol == RL_TCP && bytes < 20)
        return 0;
    if (found->protocol == RL_UDP) {
        uint32_t udp_bytes = rl_be16(header + 4);
        if (udp_bytes < 8 || udp_bytes > bytes)
            return 0;
        if (found->version == 4 && rl_be16(checksum) == 0)
            return 0;
        bytes = udp_bytes;
    }
    if (found->protocol != RL_ICMP) {
        uint32_t destination = found->version == 4 ? rl_final_destination_ipv4(frame, found)
                                                   : rl_final_destination_ipv6(frame, found);
        if (!destination)
            return 0;
        uint32_t address_bytes = found->version == 4 ? 4 : 16;
        uint32_t source = (uint32_t)found->l3 + (found->version == 4 ? 12 : 8);
        sum = (uint64_t)found->protocol + bytes;
        sum = rl_add_words(sum, frame + source, address_bytes);
        sum = rl_add_words(sum, frame + destination, address_bytes);
    }
    rl_put_be16(checksum, 0);
    uint32_t value = rl_checksum(header, bytes, sum);
    if (found->protocol == RL_UDP && value == 0)
        value = 0xFFFF;
    rl_put_be16(checksum, value);
    return 1;
}

/* Write the checksums of the IPv4 header and of TCP, UDP, ICMP or ICMPv6. Returns which of them
 * are right now: RL_FLAG_L3_OK for the IPv4 header, RL_FLAG_L4_OK for the other. The transport
 * checksum stays as it is in fragments, in packets that the frame does not hold whole, in UDP
 * over IPv4 without a checksum, and where a routing header hides the final destination. */
static inline uint8_t rl_fix_checksums(uint8_t *frame, uint32_t length)
{
    struct rl_headers found = rl_headers(frame, length);
    uint8_t flags = 0;
    if (found.version == 4) {
        uint8_t *header = frame + found.l3;
        rl_put_be16(header + 10, 0);
        rl_put_be16(header + 10, rl_checksum(header, 4u * (header[0] & 15), 0));
        flags |= RL_FLAG_L3_OK;
    }
    if (rl_fix_transport(frame, length, &found))
        flags |= RL_FLAG_L4_OK;
    return flags;
}
#endif
