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
    if (source->due != NULL && !(source->pace > 0))
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

static void free_frames(struct rl_sim *sim)
{
    free(sim->frames);
    free(sim->layers);
    free(sim->bytes);
    free(sim->order);
    free(sim->stamps);
    free(sim->due);
    sim->frames = NULL;
    sim->layers = NULL;
    sim->bytes = NULL;
    sim->order = NULL;
    sim->stamps = NULL;
    sim->due = NULL;
    sim->order_length = 0;
}

void rl_sim_source_free(struct rl_sim *sim)
{
    free_frames(sim);
    free(sim->held);
    free(sim->live.bytes);
    memset(&sim->live, 0, sizeof sim->live);
    sim->live.fd = -1;
    sim->held = NULL;
    sim->more = NULL;
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
    sim->stamps = source->stamps ? calloc(source->frames, sizeof *sim->stamps) : NULL;
    sim->due = source->due ? malloc(source->order_length * sizeof *sim->due) : NULL;
    if (sim->held == NULL)
        sim->held = malloc(HELD_FRAMES * sizeof *sim->held);
    if (sim->frames && sim->layers && sim->bytes && sim->order && sim->held &&
        !sim->stamps == !source->stamps && !sim->due == !source->due) {
        memset(sim->bytes, 0, bytes);
        return 0;
    }
    return -1;
}

/* Copy the frames of `source` in the place of those at hand. */
static int32_t take_frames(struct rl_sim *sim, const struct rl_sim_source *source)
{
    free_frames(sim);
    if (allocate(sim, source) != 0) {
        rl_sim_source_free(sim);
        return -1;
    }
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
    for (uint32_t i = 0; sim->stamps != NULL && i < source->order_length; i++)
        sim->stamps[source->order[i]] = source->stamps[i];
    if (sim->due != NULL)
        memcpy(sim->due, source->due, source->order_length * sizeof *sim->due);
    sim->epoch++; /* differs from the 0 of the new frames */
    sim->order_length = source->order_length;
    sim->at = 0;
    return 0;
}

/* Tell the queues where to leave stamps, now that it is known whether there are any. */
static void stamp_queues(struct rl_sim *sim)
{
    sim->card->stamped = sim->stamps != NULL;
    for (uint32_t i = 0; i < RL_SIM_STAMPED_QUEUES; i++)
        sim->rx[i].stamps = sim->stamps != NULL ? sim->card->stamps[i] : NULL;
}

int32_t rl_sim_source(struct rl_sim *sim, const struct rl_sim_source *source)
{
    if (!is_sound(source))
        return -2;
    rl_sim_publish(sim);
    rl_sim_source_free(sim);
    if (take_frames(sim, source) != 0)
        return -1;
    stamp_queues(sim);
    sim->held_capacity = HELD_FRAMES;
    sim->more = source->more;
    sim->context = source->context;
    sim->left = source->total != 0 ? source->total : UINT64_MAX;
    sim->open = source->rate > 0 || source->due != NULL;
    sim->rate_ns = source->rate / 1e9;
    sim->pace = source->pace;
    sim->period = source->period;
    sim->shift = 0;
    sim->began = sim->arrived = 0;
    sim->card->wire.finished = 0;
    return 0;
}

int32_t rl_sim_continue(struct rl_sim *sim, const struct rl_sim_source *source)
{
    if (!is_sound(source) || !source->stamps != !sim->stamps || !source->due != !sim->due)
        return -2;
    return take_frames(sim, source);
}

/* Frames in the packet buffer are those at hand: others come only after they left it. They come at
 * most once in a step, which must not take long. */
bool rl_sim_at_end(struct rl_sim *sim)
{
    if (RL_SIM_LIKELY(sim->at < sim->order_length))
        return false;
    if (sim->more == NULL || sim->left == 0 || sim->held_count != 0)
        return true;
    if (sim->asked)
        return true;
    sim->asked = true;
    sim->more(sim->context);
    if (sim->at < sim->order_length)
        return false;
    sim->left = 0;
    return true;
}
