/* How long frames are under way between arrival and departure. The times are kept outside the
 * frames and beside the driver, which does nothing for them: by the address of the buffer. */
#include <stdlib.h>
#include "../chip/model.h"

/* A place is 2 KiB: two buffers of packets are farther apart. */
#define PLACE_SHIFT 11
#define FINE_BITS 5 /* 32 buckets for each power of two */
#define FINE (1u << FINE_BITS)

static uint64_t places(const struct rl_sim_window *window)
{
    return (window->size >> PLACE_SHIFT) + 1;
}

/* Where the time of the frame at `bus` is kept; NULL outside all windows. */
static uint64_t *arrival_of(const struct rl_sim *sim, uint64_t bus)
{
    uint64_t *arrivals = sim->arrivals;
    for (uint32_t i = 0; i < sim->window_count; i++) {
        uint64_t offset = bus - sim->windows[i].bus;
        if (offset < sim->windows[i].size)
            return arrivals + (offset >> PLACE_SHIFT);
        arrivals += places(&sim->windows[i]);
    }
    return NULL;
}

static uint32_t bucket_of(uint64_t nanoseconds)
{
    if (nanoseconds < FINE)
        return (uint32_t)nanoseconds;
    uint32_t shift = 63 - FINE_BITS - (uint32_t)__builtin_clzll(nanoseconds);
    uint64_t bucket = (uint64_t)shift * FINE + (nanoseconds >> shift);
    return bucket < RL_SIM_TRANSIT_BUCKETS ? (uint32_t)bucket : RL_SIM_TRANSIT_BUCKETS - 1;
}

uint64_t rl_sim_transit_begin(uint32_t bucket)
{
    if (bucket < FINE)
        return bucket;
    return (uint64_t)(FINE + bucket % FINE) << (bucket / FINE - 1);
}

int32_t rl_sim_measure_transits(struct rl_sim *sim, struct rl_sim_transits *transits)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < sim->window_count; i++)
        count += places(&sim->windows[i]);
    free(sim->arrivals);
    sim->transits = NULL;
    sim->arrivals = transits ? calloc(count, sizeof *sim->arrivals) : NULL;
    if (transits && sim->arrivals == NULL)
        return -1;
    sim->transits = transits;
    return 0;
}

void rl_sim_note_arrival(struct rl_sim *sim, uint64_t bus, uint64_t due)
{
    uint64_t *arrival = arrival_of(sim, bus);
    if (arrival != NULL)
        *arrival = due;
}

void rl_sim_note_departures(struct rl_sim *sim, const struct rl_sim_tx_queue *queue,
                            uint32_t descriptors)
{
    uint64_t now = rl_sim_now();
    for (uint32_t i = 0; i < descriptors; i++) {
        uint64_t at = (queue->head + i) % queue->size;
        uint64_t *arrival = arrival_of(sim, queue->ring[2 * at]);
        if (arrival == NULL || *arrival == 0)
            continue;
        sim->transits->frames[bucket_of(now > *arrival ? now - *arrival : 0)]++;
        *arrival = 0;
    }
}
