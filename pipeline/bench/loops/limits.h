/* Bare loops for the benchmark. They move the same memory as ringline, without checks, books or
 * sleep. Their speed is the limit of this machine at this moment. Plain declarations: C and cffi
 * read this file. */
#ifndef RINGLINE_BENCH_LIMITS_H
#define RINGLINE_BENCH_LIMITS_H
#include "../../../shm/types.h"

/* Ticks for `rounds` dependent multiply-adds. */
uint64_t rl_limit_arithmetic(uint64_t rounds);

/* One side of an exchange: two cores write one cache line in turns, `rounds` times each; `side` 0
 * begins. Returns ticks, or 0 when the other side did not answer for `timeout` ticks. */
uint64_t rl_limit_ping(uint32_t *line, uint32_t side, uint32_t rounds, uint64_t timeout);

/* Swap the MAC addresses of `n` frames, `rounds` times. Returns ticks. */
uint64_t rl_limit_swap(uint8_t *memory, const struct rl_reference *refs, uint32_t n,
                       uint64_t rounds);

/* Set the port of `n` references to 0, or to 255 if the frame is shorter than 34 bytes, `rounds`
 * times: what the two functions below do beside their work. Returns ticks. */
uint64_t rl_limit_verdicts(uint8_t *memory, struct rl_reference *refs, uint32_t n, uint64_t rounds);

/* Find the headers of `n` frames, Ethernet, IPv4 or IPv6, and TCP or UDP, `rounds` times, and set
 * the port of each reference to 255 if addresses, ports and protocol cancel out, else to 0. Returns
 * ticks. */
uint64_t rl_limit_headers(uint8_t *memory, struct rl_reference *refs, uint32_t n, uint64_t rounds);

/* Count the time to live of `n` IPv4 packets down and update their header checksums, `rounds`
 * times. Returns ticks. */
uint64_t rl_limit_update(uint8_t *memory, struct rl_reference *refs, uint32_t n, uint64_t rounds);

/* Look up `n` random addresses in the struct rl_prefixes at `table`; find `n` random ones of the
 * keys 0 to `entries` - 1 in the struct rl_map at `map`. Each returns its ticks, or 0 when an
 * answer is wrong. */
uint64_t rl_limit_prefixes(uint64_t table, uint64_t n);
uint64_t rl_limit_map(uint64_t map, uint64_t entries, uint64_t n);

/* Read `n` 16-byte descriptors, rewrite each and write a reference for it, `rounds` times: a
 * receive burst must move at least this memory. Returns ticks. */
uint64_t rl_limit_descriptors(uint64_t *descriptors, struct rl_reference *refs, uint32_t n,
                              uint64_t rounds);
#endif
