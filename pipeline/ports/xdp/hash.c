/* The Toeplitz hash in software, for plugins that need rss_hash: AF_XDP gives none.
 *
 * One table for each byte of the input: the exclusive or of the entries is the hash. A frame
 * with addresses and ports of IPv6 needs 36 loads. */
#include "xdp.h"

#define IPV4 0x0800
#define IPV6 0x86dd
#define TAG 0x8100
#define SERVICE_TAG 0x88a8
#define TCP 6
#define UDP 17

void rl_xdp_hash_tables(const uint8_t *key, uint32_t *tables)
{
    for (uint32_t byte = 0; byte < 36; byte++)
        for (uint32_t value = 0; value < 256; value++) {
            uint32_t hash = 0;
            for (uint32_t bit = 0; bit < 8; bit++) {
                uint64_t window = (uint64_t)key[byte] << 32 | (uint64_t)key[byte + 1] << 24 |
                                  (uint64_t)key[byte + 2] << 16 | (uint64_t)key[byte + 3] << 8 |
                                  key[byte + 4];
                if (value & 0x80 >> bit)
                    hash ^= (uint32_t)(window >> (8 - bit));
            }
            tables[byte * 256 + value] = hash;
        }
}

static uint32_t add(const uint32_t *tables, uint32_t from, const uint8_t *bytes, uint32_t n)
{
    uint32_t hash = 0;
    for (uint32_t i = 0; i < n; i++)
        hash ^= tables[(from + i) * 256 + bytes[i]];
    return hash;
}

static uint32_t field(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

int rl_xdp_hash(const uint32_t *tables, const uint8_t *frame, uint32_t length, uint32_t *hash)
{
    uint32_t at = 12;
    uint32_t type = length >= 14 ? field(frame + at) : 0;
    for (int tags = 0; tags < 2 && (type == TAG || type == SERVICE_TAG) && length >= at + 6; tags++)
        type = field(frame + (at += 4));
    const uint8_t *packet = frame + at + 2;
    uint32_t left = length - at - 2;
    uint32_t addresses, first, header, protocol;
    if (type == IPV4 && left >= 20) {
        int fragment = (field(packet + 6) & 0x3fff) != 0;
        addresses = 8, first = 12, header = (packet[0] & 15u) * 4;
        protocol = fragment || header < 20 ? 0 : packet[9];
    } else if (type == IPV6 && left >= 40) {
        addresses = 32, first = 8, header = 40, protocol = packet[6];
    } else {
        return 0;
    }
    *hash = add(tables, 0, packet + first, addresses);
    if ((protocol == TCP || protocol == UDP) && left >= header + 4)
        *hash ^= add(tables, addresses, packet + header, 4);
    return 1;
}
