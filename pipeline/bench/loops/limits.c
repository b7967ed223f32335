/* The bare loops of limits.h. */
#include "limits.h"

#include "../../../shm/clock.h"
#include "../../../workers/lookup/lookup.h"
#include "swap.h"

#include <string.h>

uint64_t rl_limit_arithmetic(uint64_t rounds)
{
    uint64_t start = rl_clock();
    uint64_t value = start | 1;
    for (uint64_t i = 0; i < rounds; i++) {
        value = value * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(value));
    }
    return rl_clock() - start;
}

uint64_t rl_limit_ping(uint32_t *line, uint32_t side, uint32_t rounds, uint64_t timeout)
{
    uint64_t start = rl_clock();
    for (uint32_t i = 0; i < rounds; i++) {
        uint64_t since = rl_clock();
        if (side == 0)
            __atomic_store_n(line, 2 * i + 1, __ATOMIC_RELEASE);
        while (__atomic_load_n(line, __ATOMIC_ACQUIRE) != 2 * i + 2 - side)
            if (rl_clock() - since > timeout)
                return 0;
        if (side == 1)
            __atomic_store_n(line, 2 * i + 2, __ATOMIC_RELEASE);
    }
    return rl_clock() - start;
}

uint64_t rl_limit_swap(uint8_t *memory, const struct rl_reference *refs, uint32_t n,
                       uint64_t rounds)
{
    uint64_t start = rl_clock();
    for (uint64_t round = 0; round < rounds; round++)
        for (uint32_t i = 0; i < n; i++)
            rl_swap(memory + (uint64_t)refs[i].buffer * RL_BUFFER_STRIDE + refs[i].offset);
    return rl_clock() - start;
}

static uint64_t big_endian(const uint8_t *bytes, uint32_t n)
{
    uint64_t value = 0;
    memcpy(&value, bytes, n);
    return __builtin_bswap64(value) >> (64 - 8 * n);
}

/* What addresses, ports and protocol of a frame give. */
static uint64_t mixed(const uint8_t *frame)
{
    const uint8_t *ports = frame + 54;
    uint64_t protocol, mix;
    if (frame[12] == 0x08 && frame[13] == 0x00) {
        protocol = frame[23];
        mix = big_endian(frame + 26, 4) ^ big_endian(frame + 30, 4);
        ports = frame + 14 + 4 * (frame[14] & 15);
    } else if (frame[12] == 0x86 && frame[13] == 0xDD) {
        protocol = frame[20];
        mix = big_endian(frame + 30, 8) ^ big_endian(frame + 46, 8);
    } else {
        return 0;
    }
    if (protocol == 6 || protocol == 17)
        mix ^= big_endian(ports, 2) ^ big_endian(ports + 2, 2);
    return mix ^ protocol;
}

uint64_t rl_limit_verdicts(uint8_t *memory, struct rl_reference *refs, uint32_t n, uint64_t rounds)
{
    (void)memory;
    uint64_t start = rl_clock();
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < n; i++)
            refs[i].port = refs[i].length < 34 ? 255 : 0;
        __asm__ volatile("" ::: "memory");
    }
    return rl_clock() - start;
}

uint64_t rl_limit_headers(uint8_t *memory, struct rl_reference *refs, uint32_t n, uint64_t rounds)
{
    uint64_t start = rl_clock();
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < n; i++) {
            const uint8_t *frame =
                memory + (uint64_t)refs[i].buffer * RL_BUFFER_STRIDE + refs[i].offset;
            refs[i].port = mixed(frame) ? 0 : 255;
        }
        __asm__ volatile("" ::: "memory");
    }
    return rl_clock() - start;
}

uint64_t rl_limit_update(uint8_t *memory, struct rl_reference *refs, uint32_t n, uint64_t rounds)
{
    uint64_t start = rl_clock();
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < n; i++) {
            uint8_t *frame = memory + (uint64_t)refs[i].buffer * RL_BUFFER_STRIDE + refs[i].offset;
            uint32_t before = (uint32_t)big_endian(frame + 22, 2);
            uint32_t after = (before - 0x100) & 0xFFFF;
            uint32_t sum = ~(uint32_t)big_endian(frame + 24, 2) & 0xFFFF;
            sum += (~before & 0xFFFF) + after; /* RFC 1624, equation 3 */
            sum = (sum & 0xFFFF) + (sum >> 16);
            sum = ~(sum + (sum >> 16));
            frame[22] = (uint8_t)(after >> 8);
            frame[24] = (uint8_t)(sum >> 8);
            frame[25] = (uint8_t)sum;
            refs[i].port = refs[i].length < 34 ? 255 : 0;
        }
        __asm__ volatile("" ::: "memory");
    }
    return rl_clock() - start;
}

/* The next number of the generator of workers/plugins/measured.py. */
static uint64_t next_number(uint64_t last)
{
    return last * 6364136223846793005u + 1442695040888963407u;
}

uint64_t rl_limit_prefixes(uint64_t table, uint64_t n)
{
    const struct rl_prefixes *prefixes = (const struct rl_prefixes *)table;
    uint64_t start = rl_clock(), number = 1, wrong = 0;
    for (uint64_t i = 0; i < n; i++) {
        number = next_number(number);
        wrong += rl_prefix_find4(prefixes, (uint32_t)(number >> 32)) == 256;
    }
    return wrong ? 0 : rl_clock() - start;
}

uint64_t rl_limit_map(uint64_t map, uint64_t entries, uint64_t n)
{
    uint64_t start = rl_clock(), number = 1, wrong = 0;
    for (uint64_t i = 0; i < n; i++) {
        number = next_number(number);
        int64_t key = (int64_t)((number >> 32) * entries >> 32);
        wrong += rl_map_find((const struct rl_map *)map, &key, 0) < 0;
    }
    return wrong ? 0 : rl_clock() - start;
}

uint64_t rl_limit_descriptors(uint64_t *descriptors, struct rl_reference *refs, uint32_t n,
                              uint64_t rounds)
{
    uint64_t start = rl_clock();
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < n; i++) {
            uint64_t low = descriptors[2 * i], high = descriptors[2 * i + 1];
            refs[i].buffer = (uint32_t)low;
            refs[i].rss_hash = (uint32_t)(low >> 32);
            refs[i].length = (uint16_t)high;
            refs[i].offset = RL_BUFFER_HEADROOM;
            refs[i].vlan_tci = (uint16_t)(high >> 16);
            refs[i].port = 0;
            refs[i].flags = (uint8_t)(high >> 32);
            descriptors[2 * i] = low + 1;
            descriptors[2 * i + 1] = 0;
        }
        __asm__ volatile("" ::: "memory");
    }
    return rl_clock() - start;
}
