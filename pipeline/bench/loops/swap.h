/* The work of the plugin `mac_swap`, for bare loops. */
#ifndef RINGLINE_BENCH_SWAP_H
#define RINGLINE_BENCH_SWAP_H
#include <stdint.h>
#include <string.h>

/* Swap the two MAC addresses of a frame: its first 16 bytes as two words, the lower byte first. */
static inline void rl_swap(uint8_t *frame)
{
    uint64_t low, high;
    memcpy(&low, frame, 8);
    memcpy(&high, frame + 8, 8);
    uint64_t new_low = low >> 48 | high << 32 >> 16 | low << 48;
    uint64_t new_high = (low << 16 >> 32) | high >> 32 << 32;
    memcpy(frame, &new_low, 8);
    memcpy(frame + 8, &new_high, 8);
}
#endif
