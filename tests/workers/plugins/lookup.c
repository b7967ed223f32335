/* The plugin of test_lookup_tiers.py in C: see lookup.py. */
#include "plugin.h"

static inline int64_t answer(const uint8_t *frame, uint16_t length, const uint64_t *state)
{
    const struct rl_prefixes *rules = (const struct rl_prefixes *)state[0];
    struct rl_map *flows = (struct rl_map *)state[1], *named = (struct rl_map *)state[2];
    uint32_t address =
        (uint32_t)frame[2] << 24 | (uint32_t)frame[3] << 16 | (uint32_t)frame[4] << 8 | frame[5];
    int64_t now = (100 + frame[6]) * 1000000000ll, place;
    int64_t key[2] = {address, frame[1]}, value[2] = {frame[1], 7}, zero[2] = {0, 0};
    switch (frame[0]) {
    case 0:
        return rl_prefix_find4(rules, address);
    case 1:
        return rl_prefix_find6(rules, (uint64_t)address << 32, frame[1]);
    case 2:
        place = rl_map_insert(flows, key, value, now);
        if (place < 0)
            return 100;
        rl_map_value(flows, (uint64_t)place)[0]++;
        return rl_map_value(flows, (uint64_t)place)[0] + rl_map_value(flows, (uint64_t)place)[1];
    case 3:
        return rl_map_find(flows, key, now) >= 0;
    case 4:
        return rl_map_delete(flows, key);
    case 5:
        return rl_map_expire(flows, now, flows->places);
    case 6:
        place = rl_map_find(flows, key, 0);
        if (place < 0)
            return 0;
        rl_map_touch(flows, (uint64_t)place, now);
        return 1;
    case 7:
        place = rl_map_insert(named, key + 1, zero, 0);
        if (place < 0)
            return 100;
        rl_map_value(named, (uint64_t)place)[0]++;
        rl_map_value(named, (uint64_t)place)[1] += length;
        return rl_map_value(named, (uint64_t)place)[0] * 10 +
               rl_map_value(named, (uint64_t)place)[1] / 60;
    default:
        return (int64_t)(flows->used * 10 + named->used);
    }
}

static inline int64_t judge(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    frame[50] = (uint8_t)answer(frame, meta->length, batch->state);
    return RL_VERDICT_DROP;
}
RL_PLUGIN(lookup, judge)
