/* The frames that arrive: copied so that each begins on a cache line, and parsed once
 * for everything that does not depend on registers. */
#include <stdlib.h>
#include <time.h>
#include "../chip/model.h"

#define LINE 64
#define HELD_FRAMES 32768 /* maximum of frames in the packet buffer, whatever RXPBSIZE is */

uint64_t rl_sim_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t room(uint32_t length)
{
    return length < LINE ? LINE : ((uint64_t)length + LINE - 1) / LINE * LINE;
}

static int32_t is_sound(const struct rl_sim_source *source)
{
    if (source->frames == 0 || source->order_length == 0 || !(source->rate >= 0))
        return 0;
    for (uint32_t i = 0; i < source->frames; i++)
        if (source->offsets[i] > source->data_bytes ||
            source->lengths[i] > source->data_bytes - source->offsets[i])
            return 0;
    for (uint32_t i = 0; i < source->order_length; i++)
        if (source->order[i] >= source->frames)
            return 0;
    return 1;
}

void rl_sim_source_free(struct rl_sim *sim)
{
    free(sim->frames);
    free(sim->layers);
    free(sim->bytes);
    free(sim->order);
    free(sim->held);
    sim->frames = NULL;
    sim->layers = NULL;
    sim->bytes = NULL;
    sim->order = NULL;
    sim->held = NULL;
    sim->order_length = 0;
    rl_sim_held_drop(sim);
}

void rl_sim_held_drop(struct rl_sim *sim)
{
    sim->card->wire.dropped_disabled += sim->held_count;
    sim->card->wire.held = 0;
    sim->held_count = 0;
    sim->held_bytes = 0;
}

static int32_t allocate(struct rl_sim *sim, const struct rl_sim_source *source)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < source->frames; i++)
        bytes += room(source->lengths[i]);
    sim->frames = aligned_alloc(LINE, room(0) + source->frames * sizeof *sim->frames / LINE * LINE);
    sim->layers = calloc(source->frames, sizeof *sim->layers);
    sim->bytes = aligned_alloc(LINE, bytes);
    sim->order = malloc(source->order_length * sizeof *sim->order);
    sim->held = malloc(HELD_FRAMES * sizeof *sim->held);
    if (sim->frames && sim->layers && sim->bytes && sim->order && sim->held) {
        memset(sim->bytes, 0, bytes);
        return 0;
    }
    rl_sim_source_free(sim);
    return -1;
}

int32_t rl_sim_source(struct rl_sim *sim, const struct rl_sim_source *source)
{
    if (!is_sound(source))
        return -2;
    rl_sim_publish(sim);
    rl_sim_source_free(sim);
    if (allocate(sim, source) != 0)
        return -1;
    uint8_t *to = sim->bytes;
    for (uint32_t i = 0; i < source->frames; i++) {
        uint32_t length = source->lengths[i];
        memset(&sim->frames[i], 0, sizeof sim->frames[i]);
        memcpy(to, source->data + source->offsets[i], length);
        sim->frames[i].bytes = to;
        rl_sim_parse(to, length, &sim->layers[i]);
        to += room(length);
    }
    memcpy(sim->order, source->order, source->order_length * sizeof *sim->order);
    sim->epoch++; /* differs from the 0 of the new frames */
    sim->order_length = source->order_length;
    sim->held_capacity = HELD_FRAMES;
    sim->at = 0;
    sim->left = source->total != 0 ? source->total : UINT64_MAX;
    sim->rate = source->rate;
    sim->rate_ns = source->rate / 1e9;
    sim->began = sim->arrived = 0;
    sim->card->wire.finished = 0;
    return 0;
}
