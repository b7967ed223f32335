/* Gives windows of random and of nearly right bytes to the reader in C, under sanitizers. Each
 * window is an allocation of its own, so that one byte behind it is found. */
#include "workers/captures/scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint32_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 11);
}

static void put(uint8_t *at, uint32_t value, int swap)
{
    if (swap)
        value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof value);
}

/* Packets or blocks behind each other, as long as there is room. */
static void fill(uint8_t *data, uint64_t size, int pcapng, int swap)
{
    for (uint64_t at = next() % 24; at + 48 < size;) {
        uint32_t captured = next() % 90;
        if (pcapng) {
            uint32_t length = 32 + ((captured + 3) & ~3u);
            if (at + length > size)
                return;
            uint32_t words[] = {
                next() % 8 ? 6 : next() % 12, length, next() % 3, next() % 9, next(), captured,
                captured + next() % 2};
            for (int i = 0; i < 7; i++)
                put(data + at + 4 * i, words[i], swap);
            put(data + at + length - 4, length, swap);
            at += length;
        } else {
            uint32_t words[] = {1700000000u + next() % 9, next() % 1000000, captured,
                                captured + next() % 2};
            for (int i = 0; i < 4; i++)
                put(data + at + 4 * i, words[i], swap);
            at += 16 + captured;
        }
    }
}

#define DATA_BYTES 3000

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 1000;
    size_t bytes = (size_t)8 * RL_SCAN_UNITS * RL_BUFFER_STRIDE;
    uint8_t *memory = malloc(bytes + DATA_BYTES);
    struct rl_reference references[8];
    int64_t times[8];
    uint64_t packets = 0, probed = 0;
    for (long round = 0; round < rounds; round++) {
        int pcapng = next() % 2, swap = next() % 2;
        int in_place = next() % 2;
        uint64_t size = next() % DATA_BYTES;
        uint8_t *data = in_place ? memory + bytes : malloc(size ? size : 1);
        for (uint64_t i = 0; i < size; i++)
            data[i] = (uint8_t)next();
        if (next() % 4)
            fill(data, size, pcapng, swap);
        for (uint32_t faults = next() % 3; faults && size; faults--)
            data[next() % size] = (uint8_t)next();
        struct rl_scan_interface interfaces[2] = {{next() % 2 ? 1000000 : next() % 3, 0},
                                                  {1000000000, INT64_MAX - next()}};
        struct rl_scan scan = {.data = data,
                               .size = size,
                               .at = size ? next() % size : 0,
                               .stop = next() % 2 ? UINT64_MAX : next() % 4000,
                               .pcapng = (uint32_t)pcapng,
                               .swap = (uint32_t)swap,
                               .usual = next() % 8 != 0,
                               .interfaces = 2,
                               .interface = interfaces,
                               .unit = next() % 2 ? 1 : 1000,
                               .ticks = next() % 2,
                               .memory = memory,
                               .own = in_place ? data : NULL};
        int64_t begin = rl_probe(&scan, next() % 2, 1700000000u);
        if (begin >= 0) {
            scan.at = (uint64_t)begin;
            probed++;
        }
        uint32_t why = RL_SCAN_FULL;
        for (int i = 0; i < 1000 && (why == RL_SCAN_FULL || why == RL_SCAN_TICK); i++) {
            if (why == RL_SCAN_TICK)
                scan.ticking = 0;
            uint32_t n = rl_scan(&scan, references, times, 8, &why);
            packets += n;
            if (n > 8 || scan.at > size) {
                printf("round %ld: %u packets, at %lu of %lu\n", round, n, (unsigned long)scan.at,
                       (unsigned long)size);
                return 1;
            }
            for (uint32_t p = 0; p < n && in_place; p++) {
                size_t at = (size_t)references[p].buffer * RL_BUFFER_STRIDE + references[p].offset;
                if (at < bytes || at + references[p].length > bytes + size) {
                    printf("round %ld: a frame at %zu is not in the window\n", round, at);
                    return 1;
                }
            }
        }
        if (!in_place)
            free(data);
    }
    free(memory);
    if (!packets || !probed) {
        printf("no packets were found\n");
        return 1;
    }
    return 0;
}
