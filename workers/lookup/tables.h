/* The memory of prefix tables and maps. Plain declarations: the C compiler and cffi both read this
 * file. Plugin authors include lookup.h, which includes it.
 *
 * Both are named state in a worker slot, so they hold offsets and no pointers: the next process of
 * the worker finds them at another address. Memory that is all zero is a table without prefixes,
 * and a map that `rl_map_open` has not opened yet. */
#ifndef RINGLINE_WORKERS_TABLES_H
#define RINGLINE_WORKERS_TABLES_H
#include <stdint.h>

#define RL_MAP_WORDS_MAX 16 /* words of a key, and words of a value */

/* Ranges of addresses in one family, sorted by their last address. The ranges cover all addresses.
 * An index by some bits of the address says where to begin: an address of bucket b is in a range
 * from index[b] to index[b + 1]. For IPv6 the bucket comes from the high 64 bits. */
struct rl_ranges {
    uint64_t count;  /* ranges; 0: the table has no prefix of this family */
    uint64_t ends;   /* bytes from the table to the ranges */
    uint64_t values; /* IPv6: bytes from the table to the place of each range's value */
    uint64_t index;  /* bytes from the table to the index, 32 bits each */
    uint64_t base;   /* first bucket, in address bits */
    uint64_t last;   /* number of the last bucket */
    uint32_t shift;  /* the bits of an address that the index leaves out */
    uint32_t steps;  /* of a binary search in the bucket with the most ranges */
};

/* A range of IPv6 addresses ends with this address. A range of IPv4 addresses is one word: the
 * last address in the high 32 bits, the place of the value in the low 32 bits. */
struct rl_end6 {
    uint64_t low;
    uint64_t high;
};

/* One complete table. */
struct rl_bank {
    struct rl_ranges ipv4;
    struct rl_ranges ipv6;
    uint64_t values;   /* bytes from the table to the values, int64_t */
    uint64_t prefixes; /* prefixes that it was filled with */
};

/* A prefix table: lookups use one bank while the other one is filled. */
struct rl_prefixes {
    uint64_t active; /* 0 or 1 */
    int64_t missing; /* the answer for an address that no prefix covers */
    struct rl_bank banks[2];
    uint64_t reserved[2]; /* the size is a multiple of a cache line */
};

/* A hash map with open addressing. An entry is `stride` words: its check word, its time, the key,
 * the value. The check word is 0 in an empty place, RL_MAP_HOLE where an entry is on its way out,
 * and else the hash of the key. */
struct rl_map {
    uint64_t places;   /* entries follow this struct */
    uint64_t capacity; /* most entries: two thirds of the places, so that searches stay short */
    uint64_t used;     /* entries */
    uint64_t seed;     /* of the hash: nobody outside knows which keys collide */
    int64_t lifetime;  /* nanoseconds; 0: entries do not age */
    uint64_t hand;     /* the place where the next rl_map_expire begins */
    int64_t refused;   /* bytes from the map to the counter of refused entries */
    uint64_t spare;    /* the counter of a copy */
    uint32_t key_words;
    uint32_t value_words;
    uint32_t stride;
    uint32_t changing; /* 1 while entries move: a process that died then left repairs to do */
    uint64_t ready;    /* RL_MAP_READY when all the above is written */
    uint64_t reserved[5];
};
#define RL_MAP_HOLE 1
#define RL_MAP_READY 1
#endif
