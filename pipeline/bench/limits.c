/* The bare loops of limits.h. */
#include "limits.h"

#include "../../shm/clock.h"
#include "../../workers/lookup/lookup.h"

#include <string.h>

#define BULK_MAX 64

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

static void copy(struct rl_reference *to, const struct rl_reference *from, uint32_t n)
{
    memcpy(to, from, n * sizeof *to);
}

/* The capacity and every index are multiples of `bulk`, so no copy crosses the ring's end. */
uint64_t rl_limit_produce(struct rl_bare_ring *ring, uint64_t count, uint32_t bulk,
                          uint64_t timeout)
{
    struct rl_reference batch[BULK_MAX] = {{0}};
    uint32_t own = 0, peer = 0;
    uint64_t start = rl_clock(), since = start;
    for (uint64_t done = 0; done < count; done += bulk) {
        while (own + bulk - peer > RL_RING_CAPACITY) {
            peer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
            if (own + bulk - peer > RL_RING_CAPACITY && rl_clock() - since > timeout)
                return 0;
        }
        batch[0].buffer = own;
        copy(ring->entries + (own & (RL_RING_CAPACITY - 1)), batch, bulk);
        own += bulk;
        __atomic_store_n(&ring->producer, own, __ATOMIC_RELEASE);
        if ((own & 0xffff) == 0)
            since = rl_clock();
    }
    return rl_clock() - start;
}

uint64_t rl_limit_consume(struct rl_bare_ring *ring, uint64_t count, uint32_t bulk,
                          uint64_t timeout)
{
    struct rl_reference batch[BULK_MAX];
    uint32_t own = 0, peer = 0;
    uint64_t start = rl_clock(), since = start;
    for (uint64_t done = 0; done < count; done += bulk) {
        while (peer - own < bulk) {
            peer = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE);
            if (peer - own < bulk && rl_clock() - since > timeout)
                return 0;
        }
        copy(batch, ring->entries + (own & (RL_RING_CAPACITY - 1)), bulk);
        __asm__ volatile("" ::"r"(batch) : "memory");
        own += bulk;
        __atomic_store_n(&ring->consumer, own, __ATOMIC_RELEASE);
        if ((own & 0xffff) == 0)
            since = rl_clock();
    }
    return rl_clock() - start;
}

static void swap(uint8_t *frame)
{
    uint64_t to = 0, from = 0;
    memcpy(&to, frame, 6);
    memcpy(&from, frame + 6, 6);
    memcpy(frame, &from, 6);
    memcpy(frame + 6, &to, 6);
}

uint64_t rl_limit_here(struct rl_bare_ring *in, struct rl_bare_ring *out, uint64_t count,
                       uint32_t buffers, uint64_t timeout)
{
    const uint32_t bulk = 32;
    struct rl_reference batch[BULK_MAX] = {{0}};
    uint32_t in_own = 0, in_peer = 0, out_own = 0, out_peer = 0, buffer = 0;
    uint64_t start = rl_clock(), since = start, done = 0;
    while (done < count) {
        if (in_own + bulk - in_peer > RL_RING_CAPACITY)
            in_peer = __atomic_load_n(&in->consumer, __ATOMIC_ACQUIRE);
        /* At most RL_RING_CAPACITY references are under way, so `there` need not check `out`. */
        if (in_own + bulk - in_peer <= RL_RING_CAPACITY &&
            in_own + bulk - out_own <= RL_RING_CAPACITY) {
            for (uint32_t i = 0; i < bulk; i++) {
                batch[i].buffer = buffer;
                buffer = buffer + 1 < buffers ? buffer + 1 : 0;
            }
            copy(in->entries + (in_own & (RL_RING_CAPACITY - 1)), batch, bulk);
            in_own += bulk;
            __atomic_store_n(&in->producer, in_own, __ATOMIC_RELEASE);
        }
        if (out_peer - out_own < bulk)
            out_peer = __atomic_load_n(&out->producer, __ATOMIC_ACQUIRE);
        if (out_peer - out_own >= bulk) {
            copy(batch, out->entries + (out_own & (RL_RING_CAPACITY - 1)), bulk);
            __asm__ volatile("" ::"r"(batch) : "memory");
            out_own += bulk;
            __atomic_store_n(&out->consumer, out_own, __ATOMIC_RELEASE);
            done += bulk;
            if ((out_own & 0xffff) == 0)
                since = rl_clock();
        } else if (rl_clock() - since > timeout) {
            return 0;
        }
    }
    return rl_clock() - start;
}

uint64_t rl_limit_there(struct rl_bare_ring *in, struct rl_bare_ring *out, uint8_t *memory,
                        uint64_t count, uint64_t timeout)
{
    const uint32_t bulk = 32;
    struct rl_reference batch[BULK_MAX];
    uint32_t own = 0, peer = 0;
    uint64_t start = rl_clock(), since = start;
    for (uint64_t done = 0; done < count; done += bulk) {
        while (peer - own < bulk) {
            peer = __atomic_load_n(&in->producer, __ATOMIC_ACQUIRE);
            if (peer - own < bulk && rl_clock() - since > timeout)
                return 0;
        }
        uint32_t at = own & (RL_RING_CAPACITY - 1);
        copy(batch, in->entries + at, bulk);
        own += bulk;
        __atomic_store_n(&in->consumer, own, __ATOMIC_RELEASE);
        for (uint32_t i = 0; i < bulk; i++)
            swap(memory + (uint64_t)batch[i].buffer * RL_BUFFER_STRIDE + RL_BUFFER_HEADROOM);
        copy(out->entries + at, batch, bulk);
        __atomic_store_n(&out->producer, own, __ATOMIC_RELEASE);
        if ((own & 0xffff) == 0)
            since = rl_clock();
    }
    return rl_clock() - start;
}

uint64_t rl_limit_swap(uint8_t *memory, const struct rl_reference *refs, uint32_t n,
                       uint64_t rounds)
{
    uint64_t start = rl_clock();
    for (uint64_t round = 0; round < rounds; round++)
        for (uint32_t i = 0; i < n; i++)
            swap(memory + (uint64_t)refs[i].buffer * RL_BUFFER_STRIDE + refs[i].offset);
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
