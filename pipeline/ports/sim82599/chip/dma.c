/* The memory that the card can reach: a table of windows from bus addresses to memory, sorted by
 * bus address. Neighbours that continue each other in both are one window, so memory that was
 * mapped page by page is still found as a whole. */
#include <stdlib.h>
#include "registers.h"

static bool reserve(struct rl_sim *sim)
{
    if (sim->window_count + 1 < sim->window_capacity)
        return true;
    uint32_t capacity = sim->window_capacity ? 2 * sim->window_capacity : 8;
    struct rl_sim_window *windows = realloc(sim->windows, capacity * sizeof *windows);
    if (windows == NULL)
        return false;
    sim->windows = windows;
    sim->window_capacity = capacity;
    return true;
}

static void insert(struct rl_sim *sim, uint32_t at, struct rl_sim_window window)
{
    memmove(&sim->windows[at + 1], &sim->windows[at],
            (sim->window_count++ - at) * sizeof *sim->windows);
    sim->windows[at] = window;
}

static void cut_out(struct rl_sim *sim, uint32_t at)
{
    memmove(&sim->windows[at], &sim->windows[at + 1],
            (--sim->window_count - at) * sizeof *sim->windows);
}

/* The index of the first window that ends behind `bus`. */
static uint32_t first_behind(const struct rl_sim *sim, uint64_t bus)
{
    uint32_t low = 0, high = sim->window_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sim->windows[middle].bus + sim->windows[middle].size > bus)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The queues that are on find their rings again: a ring whose memory is gone stops its queue as
 * soon as it is used. */
static void find_rings(struct rl_sim *sim)
{
    sim->window_last = 0;
    if (sim->window_count == 0)
        memset(sim->windows, 0, sizeof *sim->windows); /* what rl_sim_reach looks at first */
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        uint32_t number = sim->rx_active[i];
        const uint32_t *bank = &sim->registers[rl_sim_rx_register(number, 0) / 4];
        sim->rx[number].ring = (uint64_t *)(void *)rl_sim_reach(
            sim, bank[0] | (uint64_t)bank[1] << 32, 16 * (uint64_t)sim->rx[number].size);
    }
    for (uint32_t i = 0; i < sim->tx_count; i++) {
        uint32_t number = sim->tx_active[i];
        const uint32_t *bank = &sim->registers[rl_sim_tx_register(number, 0) / 4];
        sim->tx[number].ring = (uint64_t *)(void *)rl_sim_reach(
            sim, bank[0] | (uint64_t)bank[1] << 32, 16 * (uint64_t)sim->tx[number].size);
    }
}

static bool continues(const struct rl_sim_window *one, const struct rl_sim_window *next)
{
    return one->bus + one->size == next->bus && one->host + one->size == next->host;
}

int32_t rl_sim_map(struct rl_sim *sim, uint64_t bus, void *address, uint64_t size)
{
    uint32_t at = first_behind(sim, bus);
    if (size == 0 || bus + size < bus)
        return -2;
    if (at < sim->window_count && sim->windows[at].bus < bus + size)
        return -2;
    if (!reserve(sim))
        return -1;
    insert(sim, at, (struct rl_sim_window){.bus = bus, .size = size, .host = address});
    struct rl_sim_window *window = &sim->windows[at];
    if (at + 1 < sim->window_count && continues(window, window + 1)) {
        window->size += window[1].size;
        cut_out(sim, at + 1);
    }
    if (at > 0 && continues(window - 1, window)) {
        window[-1].size += window->size;
        cut_out(sim, at);
    }
    find_rings(sim);
    return 0;
}

int32_t rl_sim_unmap(struct rl_sim *sim, uint64_t bus, uint64_t size)
{
    uint64_t end = bus + size < bus ? UINT64_MAX : bus + size;
    if (!reserve(sim))
        return -1;
    for (uint32_t at = first_behind(sim, bus);
         at < sim->window_count && sim->windows[at].bus < end;) {
        struct rl_sim_window whole = sim->windows[at];
        uint64_t whole_end = whole.bus + whole.size;
        cut_out(sim, at);
        if (whole.bus < bus)
            insert(sim, at++, (struct rl_sim_window){whole.bus, bus - whole.bus, whole.host});
        if (whole_end > end)
            insert(sim, at++,
                   (struct rl_sim_window){end, whole_end - end, whole.host + (end - whole.bus)});
    }
    find_rings(sim);
    return 0;
}

uint8_t *rl_sim_find(struct rl_sim *sim, uint64_t bus, uint64_t size)
{
    uint32_t at = first_behind(sim, bus);
    if (at == sim->window_count || sim->windows[at].bus > bus)
        return NULL;
    const struct rl_sim_window *window = &sim->windows[at];
    uint64_t offset = bus - window->bus;
    if (size > window->size - offset)
        return NULL;
    sim->window_last = at;
    return window->host + offset;
}

bool rl_sim_covered(const struct rl_sim *sim, uint64_t bus, uint64_t size)
{
    uint32_t at = first_behind(sim, bus);
    for (uint64_t next = bus; at < sim->window_count && sim->windows[at].bus <= next; at++) {
        next = sim->windows[at].bus + sim->windows[at].size;
        if (next - bus >= size)
            return true;
    }
    return false;
}

void rl_sim_copy_across(struct rl_sim *sim, uint64_t bus, uint8_t *own, uint64_t size, bool write)
{
    while (size > 0) {
        const struct rl_sim_window *window = &sim->windows[first_behind(sim, bus)];
        uint64_t offset = bus - window->bus;
        uint64_t part = window->size - offset < size ? window->size - offset : size;
        if (write)
            memcpy(window->host + offset, own, part);
        else
            memcpy(own, window->host + offset, part);
        bus += part;
        own += part;
        size -= part;
    }
}
