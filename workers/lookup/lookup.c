/* The functions of lookup_python.h. */
#include "lookup_python.h"

#include "lookup.h"

#include <string.h>

int64_t rl_lookup_find4(uint64_t table, int64_t address)
{
    return rl_prefix_find4((const struct rl_prefixes *)table, (uint32_t)address);
}

int64_t rl_lookup_find6(uint64_t table, int64_t high, int64_t low)
{
    return rl_prefix_find6((const struct rl_prefixes *)table, (uint64_t)high, (uint64_t)low);
}

int64_t rl_lookup_find(uint64_t map, const int64_t *key, int64_t now)
{
    return rl_map_find((const struct rl_map *)map, key, now);
}

int64_t rl_lookup_insert(uint64_t map, const int64_t *key, const int64_t *value, int64_t now)
{
    return rl_map_insert((struct rl_map *)map, key, value, now);
}

int64_t rl_lookup_delete(uint64_t map, const int64_t *key)
{
    return rl_map_delete((struct rl_map *)map, key);
}

int64_t rl_lookup_touch(uint64_t map, int64_t place, int64_t now)
{
    const struct rl_map *of = (const struct rl_map *)map;
    if (place < 0 || (uint64_t)place >= of->places)
        return 0;
    rl_map_touch(of, (uint64_t)place, now);
    return 1;
}

int64_t rl_lookup_expire(uint64_t map, int64_t now, int64_t places)
{
    return rl_map_expire((struct rl_map *)map, now, places < 0 ? 0 : (uint64_t)places);
}

void rl_lookup_addresses(uint64_t addresses[7])
{
    addresses[0] = (uint64_t)rl_lookup_find4;
    addresses[1] = (uint64_t)rl_lookup_find6;
    addresses[2] = (uint64_t)rl_lookup_find;
    addresses[3] = (uint64_t)rl_lookup_insert;
    addresses[4] = (uint64_t)rl_lookup_delete;
    addresses[5] = (uint64_t)rl_lookup_touch;
    addresses[6] = (uint64_t)rl_lookup_expire;
}

/* An address of either family as one number. */
typedef unsigned __int128 address_t;

#define LINE 64
#define INDEX_BITS_MAX 16 /* an index of 256 KiB stays in the second-level cache */

static uint64_t lines(uint64_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

/* n prefixes divide the addresses into at most 2n + 1 ranges. */
static uint64_t ranges_max(uint64_t prefixes)
{
    return 2 * prefixes + 1;
}

/* About as many buckets as ranges, so that few ranges share a bucket. */
static uint32_t index_bits(uint64_t prefixes)
{
    uint32_t bits = 2;
    while (bits < INDEX_BITS_MAX && 1ull << bits < ranges_max(prefixes))
        bits++;
    return bits;
}

/* Give each part of a bank its memory, from byte `at` of the table on. Returns the end. */
static uint64_t place_bank(struct rl_bank *bank, uint64_t ipv4, uint64_t ipv6, uint64_t at)
{
    uint64_t *parts[] = {&bank->values,    &bank->ipv4.ends,  &bank->ipv4.index,
                         &bank->ipv6.ends, &bank->ipv6.index, &bank->ipv6.values};
    uint64_t index4 = 4 * ((1ull << index_bits(ipv4)) + 1);
    uint64_t index6 = 4 * ((1ull << index_bits(ipv6)) + 1);
    uint64_t sizes[] = {
        8 * (ipv4 + ipv6 + 1), ipv4 ? 8 * ranges_max(ipv4) : 0,
        ipv4 ? index4 : 0,     ipv6 ? sizeof(struct rl_end6) * ranges_max(ipv6) : 0,
        ipv6 ? index6 : 0,     ipv6 ? 4 * ranges_max(ipv6) : 0,
    };
    for (int i = 0; i < 6; i++) {
        *parts[i] = at;
        at += lines(sizes[i]);
    }
    return at;
}

uint64_t rl_prefixes_bytes(uint64_t ipv4, uint64_t ipv6)
{
    struct rl_bank bank;
    return place_bank(&bank, ipv4, ipv6, place_bank(&bank, ipv4, ipv6, sizeof(struct rl_prefixes)));
}

/* The ranges that are being written. */
struct writer {
    char *table;
    struct rl_ranges *ranges;
    int width;       /* 32 or 128 bits */
    address_t next;  /* the first address that no range covers yet */
    uint32_t before; /* the place of the value of the last range */
    int done;        /* the last range ends with the last address */
};

static address_t last_address(int width)
{
    return ~(address_t)0 >> (128 - width);
}

static void put_end(const struct writer *writer, uint64_t at, address_t end, uint32_t value)
{
    char *ends = writer->table + writer->ranges->ends;
    if (writer->width == 32) {
        ((uint64_t *)ends)[at] = (uint64_t)end << 32 | value;
    } else {
        ((struct rl_end6 *)ends)[at] = (struct rl_end6){(uint64_t)end, (uint64_t)(end >> 64)};
        ((uint32_t *)(writer->table + writer->ranges->values))[at] = value;
    }
}

static address_t end_at(const struct writer *writer, uint64_t at)
{
    const char *ends = writer->table + writer->ranges->ends;
    if (writer->width == 32)
        return ((const uint64_t *)ends)[at] >> 32;
    const struct rl_end6 *end = (const struct rl_end6 *)ends + at;
    return (address_t)end->high << 64 | end->low;
}

/* The next range goes up to `end`, unless that is covered; neighbours of one value become one. */
static void put_range(struct writer *writer, address_t end, uint32_t value)
{
    if (writer->done || end < writer->next)
        return;
    if (writer->ranges->count && writer->before == value)
        writer->ranges->count--;
    put_end(writer, writer->ranges->count++, end, value);
    writer->before = value;
    writer->next = end + 1;
    writer->done = end == last_address(writer->width);
}

/* Prefixes nest, so the ones around an address are a stack: the innermost is on top. */
static void put_ranges(struct writer *writer, const struct rl_prefix *prefixes, uint64_t n)
{
    struct {
        address_t end;
        uint32_t value;
    } around[130] = {{last_address(writer->width), 0}};
    int top = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct rl_prefix *prefix = prefixes + i;
        address_t start = (address_t)prefix->high << 64 | prefix->low;
        uint32_t inside = (uint32_t)writer->width - prefix->length;
        address_t end = inside == 128 ? ~(address_t)0 : start + (((address_t)1 << inside) - 1);
        for (; around[top].end < start; top--)
            put_range(writer, around[top].end, around[top].value);
        if (start > 0)
            put_range(writer, start - 1, around[top].value);
        top++;
        around[top].end = end;
        around[top].value = prefix->value;
    }
    for (; top >= 0; top--)
        put_range(writer, around[top].end, around[top].value);
}

static uint64_t index_part(const struct writer *writer, address_t address)
{
    return (uint64_t)(writer->width == 32 ? address : address >> 64);
}

/* Choose the bits of the index so that it divides the part of the addresses where the ranges
 * end, and fill it. */
static void put_index(struct writer *writer, uint32_t bits)
{
    struct rl_ranges *ranges = writer->ranges;
    uint32_t *index = (uint32_t *)(writer->table + ranges->index);
    uint64_t count = ranges->count, most = 0, at = 0;
    uint64_t first = index_part(writer, end_at(writer, 0));
    uint64_t last = index_part(writer, end_at(writer, count < 2 ? 0 : count - 2));
    ranges->shift = 0;
    while ((last >> ranges->shift) - (first >> ranges->shift) >= 1ull << bits)
        ranges->shift++;
    ranges->base = first >> ranges->shift;
    ranges->last = (last >> ranges->shift) - ranges->base;
    index[0] = 0;
    for (uint64_t bucket = 1; bucket <= ranges->last; bucket++) {
        uint64_t start = (ranges->base + bucket) << ranges->shift;
        while (index_part(writer, end_at(writer, at)) < start)
            at++;
        index[bucket] = (uint32_t)at;
    }
    index[ranges->last + 1] = (uint32_t)(count - 1);
    for (uint64_t bucket = 0; bucket <= ranges->last; bucket++)
        if (index[bucket + 1] - index[bucket] + 1 > most)
            most = index[bucket + 1] - index[bucket] + 1;
    ranges->steps = 0;
    while (1ull << ranges->steps < most)
        ranges->steps++;
}

static void put_family(struct rl_prefixes *table, struct rl_ranges *ranges, int width,
                       const struct rl_prefix *prefixes, uint64_t n, uint32_t bits)
{
    struct writer writer = {(char *)table, ranges, width, 0, 0, 0};
    ranges->count = 0;
    if (!n)
        return;
    put_ranges(&writer, prefixes, n);
    put_index(&writer, bits);
}

void rl_prefixes_fill(struct rl_prefixes *table, uint64_t most4, uint64_t most6,
                      const struct rl_prefix *prefixes, uint64_t ipv4, uint64_t ipv6,
                      const int64_t *values, uint64_t count)
{
    uint64_t other = ~table->active & 1, at = sizeof *table;
    struct rl_bank *bank = &table->banks[other], unused;
    if (other)
        at = place_bank(&unused, most4, most6, at);
    place_bank(bank, most4, most6, at);
    memcpy((char *)table + bank->values, values, 8 * count);
    put_family(table, &bank->ipv4, 32, prefixes, ipv4, index_bits(most4));
    put_family(table, &bank->ipv6, 128, prefixes + ipv4, ipv6, index_bits(most6));
    bank->prefixes = ipv4 + ipv6;
    __atomic_store_n(&table->active, other, __ATOMIC_RELEASE);
}

/* At most two thirds of the places are in use: a search looks at two places on average, and one
 * without a result at five (Knuth, The Art of Computer Programming, volume 3, section 6.4). */
static uint64_t places_for(uint64_t capacity)
{
    return capacity + capacity / 2 + 2;
}

/* An entry of up to 8 words lies in one cache line. */
static uint32_t stride_for(uint32_t key_words, uint32_t value_words)
{
    uint32_t words = 2 + key_words + value_words;
    return words <= 4 ? 4 : (words + 7) / 8 * 8;
}

uint64_t rl_map_bytes(uint64_t capacity, uint32_t key_words, uint32_t value_words)
{
    return sizeof(struct rl_map) + 8 * places_for(capacity) * stride_for(key_words, value_words);
}

/* A process died while entries moved: remove the entry that is there twice, and the hole. */
static void repair(struct rl_map *map)
{
    uint64_t free;
    for (uint64_t place = 0; place < map->places; place++) {
        int64_t *entry = rl_map_entry(map, place);
        if ((uint64_t)entry[0] > RL_MAP_HOLE &&
            rl_map_search(map, entry + 2, (uint64_t)entry[0], &free) != (int64_t)place)
            rl_map_check(entry, RL_MAP_HOLE);
    }
    for (uint64_t place = 0; place < map->places; place++)
        if (rl_map_entry(map, place)[0] == RL_MAP_HOLE)
            rl_map_close(map, place);
    map->used = 0;
    for (uint64_t place = 0; place < map->places; place++)
        map->used += rl_map_entry(map, place)[0] != 0;
    rl_map_changing(map, 0);
}

void rl_map_open(struct rl_map *map, uint64_t capacity, uint32_t key_words, uint32_t value_words,
                 int64_t lifetime, uint64_t seed, int64_t refused)
{
    uint64_t places = places_for(capacity);
    uint32_t stride = stride_for(key_words, value_words);
    int same = map->ready == RL_MAP_READY && map->places == places && map->capacity == capacity &&
               map->key_words == key_words && map->value_words == value_words &&
               map->stride == stride && map->used <= places;
    if (!same && map->ready) { /* a wild write hit it */
        /* The header last: a process that dies here leaves a map that is cleared again. */
        memset(map + 1, 0, rl_map_bytes(capacity, key_words, value_words) - sizeof *map);
        RL_MAP_ORDER();
        memset(map, 0, sizeof *map);
    }
    map->lifetime = lifetime;
    map->refused = refused;
    if (same) {
        if (map->changing)
            repair(map);
        return;
    }
    map->places = places;
    map->capacity = capacity;
    map->seed = seed;
    map->key_words = key_words;
    map->value_words = value_words;
    map->stride = stride;
    __atomic_store_n(&map->ready, RL_MAP_READY, __ATOMIC_RELEASE);
}
