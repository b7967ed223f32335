/* The functions of prefix tables and maps that Python calls, as functions of the module. Compiled
 * Python calls the first group by their names (tiers/jit_lookup.py), so all tiers run one code.
 * Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_WORKERS_LOOKUP_PYTHON_H
#define RINGLINE_WORKERS_LOOKUP_PYTHON_H
#include "tables.h"

/* As the functions of lookup.h without "lookup"; an address in `uint64_t` words. */
int64_t rl_lookup_find4(uint64_t table, int64_t address);
int64_t rl_lookup_find6(uint64_t table, int64_t high, int64_t low);
int64_t rl_lookup_find(uint64_t map, const int64_t *key, int64_t now);
int64_t rl_lookup_insert(uint64_t map, const int64_t *key, const int64_t *value, int64_t now);
int64_t rl_lookup_delete(uint64_t map, const int64_t *key);
int64_t rl_lookup_touch(uint64_t map, int64_t place, int64_t now);
int64_t rl_lookup_expire(uint64_t map, int64_t now, int64_t places);

/* The addresses of these functions, in that order. */
void rl_lookup_addresses(uint64_t addresses[7]);

/* A prefix: its first address and its length in bits, and the place of its value. An IPv4 address
 * is in `low`. */
struct rl_prefix {
    uint64_t high;
    uint64_t low;
    uint32_t length;
    uint32_t value;
};

/* Bytes of a table for this many prefixes, with two banks; and of a map. */
uint64_t rl_prefixes_bytes(uint64_t ipv4, uint64_t ipv6);
uint64_t rl_map_bytes(uint64_t capacity, uint32_t key_words, uint32_t value_words);

/* Fill the bank that is not in use with `ipv4` and then `ipv6` prefixes, each family sorted by
 * address and then by length, without repetitions; `values` has `count` values, the first is that
 * of addresses without a prefix. Then switch to that bank. `most4` and `most6` are the numbers of
 * prefixes that the table was made for; the caller keeps to them. */
void rl_prefixes_fill(struct rl_prefixes *table, uint64_t most4, uint64_t most6,
                      const struct rl_prefix *prefixes, uint64_t ipv4, uint64_t ipv6,
                      const int64_t *values, uint64_t count);

/* Make an empty map of zeros, or repair the one that an earlier process left. `seed` is for a new
 * map. The memory has rl_map_bytes bytes. */
void rl_map_open(struct rl_map *map, uint64_t capacity, uint32_t key_words, uint32_t value_words,
                 int64_t lifetime, uint64_t seed, int64_t refused);
#endif
