/* Receive-side scaling: the Toeplitz hash, and the queue that it selects. */
#include "../chip/registers.h"

/* Each bit i of the input that is set adds (XOR) the 32 bits of the key from bit i on. */
uint32_t rl_sim_toeplitz(const uint8_t *key, const uint8_t *input, uint32_t length)
{
    uint32_t hash = 0;
    uint32_t window =
        (uint32_t)key[0] << 24 | (uint32_t)key[1] << 16 | (uint32_t)key[2] << 8 | key[3];
    for (uint32_t i = 0; i < length; i++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            if (input[i] & 0x80u >> bit)
                hash ^= window;
            window = window << 1 | (key[i + 4] >> (7 - bit) & 1u);
        }
    }
    return hash;
}

/* The RSS type in the descriptor: which fields of the frame are hashed, as MRQC
 * enables them; 0 when there is no hash. */
static uint32_t hash_type(uint32_t mrqc, const struct rl_sim_layers *layers)
{
    bool tcp = layers->tcp && layers->ports;
    bool udp = layers->udp && layers->ports;
    if (layers->ip == 4) {
        if (tcp && (mrqc & MRQC_TCP_IPV4))
            return 1;
        if (udp && (mrqc & MRQC_UDP_IPV4))
            return 7;
        return (mrqc & MRQC_IPV4) ? 2 : 0;
    }
    if (layers->ip == 6) {
        if (tcp && (mrqc & MRQC_TCP_IPV6))
            return 3;
        if (udp && (mrqc & MRQC_UDP_IPV6))
            return 8;
        return (mrqc & MRQC_IPV6) ? 5 : 0;
    }
    return 0;
}

uint32_t rl_sim_rss(const struct rl_sim *sim, const uint8_t *bytes,
                    const struct rl_sim_layers *layers, uint32_t *type, uint32_t *queue)
{
    uint8_t key[40];
    uint8_t input[36];
    uint32_t mrqc = sim->registers[MRQC / 4];
    *type = *queue = 0;
    if ((mrqc & MRQC_MRQE) != MRQC_RSS)
        return 0;
    *type = hash_type(mrqc, layers);
    if (*type == 0)
        return 0;
    for (uint32_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(sim->registers[RSSRK / 4 + i / 4] >> i % 4 * 8);
    uint32_t length = layers->ip == 4 ? 8 : 32;
    memcpy(input, bytes + layers->addresses, length);
    if (*type != 2 && *type != 5) {
        memcpy(input + length, bytes + layers->ports, 4);
        length += 4;
    }
    uint32_t hash = rl_sim_toeplitz(key, input, length);
    uint32_t entry = hash & 0x7F;
    *queue = sim->registers[RETA / 4 + entry / 4] >> entry % 4 * 8 & 0xF;
    return hash;
}
