/* Lookups in prefix tables and maps, for plugins in C; plugin.h includes this file.
 *
 *     int64_t rule = rl_prefix_find4(table, address);
 *     int64_t place = rl_map_find(map, key, 0);
 *
 * Python makes a table with `worker.prefixes` and a map with `worker.map`; their attribute
 * `address` is the address to give to the C function, for instance as its state.
 *
 * Only the worker's own process may use them, and only one function at a time.
 *
 * Guarantees (tests in tests/workers/lookup/test_crash.py):
 *  - a process that dies at any instruction leaves no entry that is found and is not whole, and
 *    loses no other entry (test_a_map_is_whole_after_each_instruction)
 *  - the next process repairs the map: no entry is there twice, and the count is right
 *    (test_a_map_survives_kills_at_random_moments)
 *  - a process that dies while it fills a table leaves the table that was there before
 *    (test_a_table_that_is_filled_halfway_is_the_old_one) */
#ifndef RINGLINE_WORKERS_LOOKUP_H
#define RINGLINE_WORKERS_LOOKUP_H
#include "tables.h"

#include <stddef.h>

/* A binary search makes the same number of steps for each address, so that the processor predicts
 * its loop. With one range left a step changes nothing; it reads the memory before the range, which
 * is a part of the table. RL_NUMBER makes the compiler compute with the result of a comparison; it
 * would rather make a branch of it, which no processor could predict. */
#define RL_NUMBER(result) __asm__("" : "+r"(result))

static inline uint64_t rl_bucket(const struct rl_ranges *ranges, uint64_t bits)
{
    uint64_t bucket = bits >> ranges->shift;
    bucket = bucket > ranges->base ? bucket - ranges->base : 0;
    return bucket < ranges->last ? bucket : ranges->last;
}

/* The value of the longest IPv4 prefix that covers `address` (in the order of the machine), or
 * `missing` of the table. */
static inline int64_t rl_prefix_find4(const struct rl_prefixes *table, uint32_t address)
{
    const struct rl_bank *bank = &table->banks[table->active & 1];
    const struct rl_ranges *ranges = &bank->ipv4;
    if (!ranges->count)
        return table->missing;
    const char *base = (const char *)table;
    const uint32_t *index = (const uint32_t *)(base + ranges->index) + rl_bucket(ranges, address);
    const uint64_t *at = (const uint64_t *)(base + ranges->ends) + index[0];
    uint64_t left = index[1] - index[0] + 1, wanted = (uint64_t)address << 32;
    for (uint32_t step = ranges->steps; step > 0; step--) {
        uint64_t half = left >> 1, less = at[(ptrdiff_t)half - 1] < wanted;
        RL_NUMBER(less);
        at += half & -less;
        left -= half;
    }
    return ((const int64_t *)(base + bank->values))[(uint32_t)*at];
}

/* The same for IPv6: `high` and `low` are the two halves of the address. */
static inline int64_t rl_prefix_find6(const struct rl_prefixes *table, uint64_t high, uint64_t low)
{
    const struct rl_bank *bank = &table->banks[table->active & 1];
    const struct rl_ranges *ranges = &bank->ipv6;
    if (!ranges->count)
        return table->missing;
    const char *base = (const char *)table;
    const uint32_t *index = (const uint32_t *)(base + ranges->index) + rl_bucket(ranges, high);
    const struct rl_end6 *first = (const struct rl_end6 *)(base + ranges->ends);
    const struct rl_end6 *at = first + index[0];
    uint64_t left = index[1] - index[0] + 1;
    for (uint32_t step = ranges->steps; step > 0; step--) {
        uint64_t half = left >> 1;
        const struct rl_end6 *end = at + (ptrdiff_t)half - 1;
        uint64_t less = (end->high < high) | ((end->high == high) & (end->low < low));
        RL_NUMBER(less);
        at += half & -less;
        left -= half;
    }
    uint32_t value = ((const uint32_t *)(base + ranges->values))[at - first];
    return ((const int64_t *)(base + bank->values))[value];
}

/* The words of the entry at `place`: check word, time, key, value. */
static inline int64_t *rl_map_entry(const struct rl_map *map, uint64_t place)
{
    return (int64_t *)(map + 1) + place * map->stride;
}

/* The words of the value at `place`, which may be read and written. One word is whole at any
 * moment; two words are not whole together when the process dies between them. A place is valid
 * until the next rl_map_delete or rl_map_expire. */
static inline int64_t *rl_map_value(const struct rl_map *map, uint64_t place)
{
    return rl_map_entry(map, place) + 2 + map->key_words;
}

/* The check word of a key: its hash with bit 1 set, so never 0 and never RL_MAP_HOLE. Each word is
 * multiplied to 128 bits, whose halves are combined. */
static inline uint64_t rl_map_hash(const struct rl_map *map, const int64_t *key)
{
    uint64_t hash = map->seed;
    for (uint32_t i = 0; i < map->key_words; i++) {
        unsigned __int128 product =
            (unsigned __int128)(hash ^ (uint64_t)key[i]) * 0x9e3779b97f4a7c15u;
        hash = (uint64_t)(product >> 64) ^ (uint64_t)product ^ (hash << 32 | hash >> 32);
    }
    return hash | 2;
}

static inline uint64_t rl_map_home(const struct rl_map *map, uint64_t check)
{
    return (uint64_t)((unsigned __int128)check * map->places >> 64);
}

static inline uint64_t rl_map_next(const struct rl_map *map, uint64_t place)
{
    return place + 1 < map->places ? place + 1 : 0;
}

/* The difference without a sign is right for all times; with a sign it would overflow. */
static inline int rl_map_is_old(const struct rl_map *map, const int64_t *entry, int64_t now)
{
    return map->lifetime && now && entry[1] && now > entry[1] &&
           (uint64_t)now - (uint64_t)entry[1] > (uint64_t)map->lifetime;
}

/* The place of the entry with this key, of any age; -1 without one, and then `free` is the empty
 * place for it. */
static inline int64_t rl_map_search(const struct rl_map *map, const int64_t *key, uint64_t check,
                                    uint64_t *free)
{
    uint64_t place = rl_map_home(map, check);
    for (uint64_t n = 0; n < map->places; n++) {
        const int64_t *entry = rl_map_entry(map, place);
        if ((uint64_t)entry[0] == check) {
            uint32_t same = 0;
            while (same < map->key_words && entry[2 + same] == key[same])
                same++;
            if (same == map->key_words)
                return (int64_t)place;
        } else if (entry[0] == 0) {
            *free = place;
            return -1;
        }
        place = rl_map_next(map, place);
    }
    *free = map->places; /* only a wild write can fill all places */
    return -1;
}

/* The place of the entry with the `key_words` words of `key`, or -1. With `now`, nanoseconds of
 * the clock that the plugin uses for its entries, an entry older than the lifetime is not found;
 * 0 finds entries of any age. */
static inline int64_t rl_map_find(const struct rl_map *map, const int64_t *key, int64_t now)
{
    uint64_t free;
    int64_t place = rl_map_search(map, key, rl_map_hash(map, key), &free);
    return place >= 0 && rl_map_is_old(map, rl_map_entry(map, (uint64_t)place), now) ? -1 : place;
}

/* The entry is used at `now`: its life begins again. */
static inline void rl_map_touch(const struct rl_map *map, uint64_t place, int64_t now)
{
    rl_map_entry(map, place)[1] = now;
}

/* Nothing moves across this line. It is enough: a process that dies has done all stores of the
 * instructions before, and no other process reads before it is dead. */
#define RL_MAP_ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static inline void rl_map_changing(struct rl_map *map, uint32_t changing)
{
    RL_MAP_ORDER();
    __atomic_store_n(&map->changing, changing, __ATOMIC_RELAXED);
    RL_MAP_ORDER();
}

static inline void rl_map_check(int64_t *entry, uint64_t check)
{
    RL_MAP_ORDER();
    __atomic_store_n(entry, (int64_t)check, __ATOMIC_RELAXED);
    RL_MAP_ORDER();
}

static inline void rl_map_write(const struct rl_map *map, int64_t *entry, const int64_t *key,
                                const int64_t *value, int64_t now)
{
    entry[1] = now;
    for (uint32_t i = 0; i < map->key_words; i++)
        entry[2 + i] = key[i];
    for (uint32_t i = 0; i < map->value_words; i++)
        entry[2 + map->key_words + i] = value[i];
}

/* The place of the entry with this key: a new one with this value and the time `now`, or the one
 * that is there, which keeps its value and its time. One that is older than the lifetime is
 * replaced. An entry with the time 0 does not age. Returns -1, and counts it, when the map has as
 * many entries as it can. */
static inline int64_t rl_map_insert(struct rl_map *map, const int64_t *key, const int64_t *value,
                                    int64_t now)
{
    uint64_t check = rl_map_hash(map, key), place = 0;
    int64_t found = rl_map_search(map, key, check, &place);
    if (found >= 0 && !rl_map_is_old(map, rl_map_entry(map, (uint64_t)found), now))
        return found;
    if (found < 0 && (map->used >= map->capacity || place >= map->places)) {
        ++*(uint64_t *)((char *)map + map->refused);
        return -1;
    }
    place = found < 0 ? place : (uint64_t)found;
    int64_t *entry = rl_map_entry(map, place);
    rl_map_changing(map, 1);
    if (found >= 0)
        rl_map_check(entry, RL_MAP_HOLE);
    rl_map_write(map, entry, key, value, now);
    rl_map_check(entry, check);
    map->used += found < 0;
    rl_map_changing(map, 0);
    return (int64_t)place;
}

/* Fill the hole at `hole` with a later entry that belongs there or before, and so on up to an
 * empty place: no search may end at a place where an entry was. An entry that moves is for a
 * moment in two places, and a search finds the first. */
static inline void rl_map_close(struct rl_map *map, uint64_t hole)
{
    uint64_t place = hole;
    for (uint64_t n = 0; n < map->places; n++) {
        place = rl_map_next(map, place);
        int64_t *entry = rl_map_entry(map, place), *to = rl_map_entry(map, hole);
        uint64_t check = (uint64_t)entry[0];
        if (check == 0)
            break;
        uint64_t home = check == RL_MAP_HOLE ? place : rl_map_home(map, check);
        uint64_t from_home = place >= home ? place - home : place + map->places - home;
        uint64_t from_hole = place >= hole ? place - hole : place + map->places - hole;
        if (from_home < from_hole)
            continue;
        rl_map_write(map, to, entry + 2, entry + 2 + map->key_words, entry[1]);
        rl_map_check(to, check);
        rl_map_check(entry, RL_MAP_HOLE);
        hole = place;
    }
    rl_map_check(rl_map_entry(map, hole), 0);
}

/* Delete the entry at `place`. */
static inline void rl_map_remove(struct rl_map *map, uint64_t place)
{
    rl_map_changing(map, 1);
    rl_map_check(rl_map_entry(map, place), RL_MAP_HOLE);
    map->used--;
    rl_map_close(map, place);
    rl_map_changing(map, 0);
}

/* Delete the entry with this key. Returns 1, or 0 when there is none. */
static inline int64_t rl_map_delete(struct rl_map *map, const int64_t *key)
{
    uint64_t free;
    int64_t place = rl_map_search(map, key, rl_map_hash(map, key), &free);
    if (place < 0)
        return 0;
    rl_map_remove(map, (uint64_t)place);
    return 1;
}

/* Look at `places` places from where the last call ended, and delete the entries that are older
 * than the lifetime. Returns how many those were. */
static inline int64_t rl_map_expire(struct rl_map *map, int64_t now, uint64_t places)
{
    int64_t expired = 0;
    uint64_t place = map->hand < map->places ? map->hand : 0;
    for (places = places < map->places ? places : map->places; places > 0; places--) {
        const int64_t *entry = rl_map_entry(map, place);
        while ((uint64_t)entry[0] > RL_MAP_HOLE && rl_map_is_old(map, entry, now)) {
            rl_map_remove(map, place); /* another entry may move to this place */
            expired++;
        }
        place = rl_map_next(map, place);
    }
    map->hand = place;
    return expired;
}
#endif
