/* The card as a whole: create, connect, step and free it. */
#include <stdlib.h>
#include "chip/registers.h"

struct rl_sim *rl_sim_new(const struct rl_sim_config *config)
{
    struct rl_sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL)
        return NULL;
    sim->own_card = config->card == NULL;
    sim->card = sim->own_card ? calloc(1, sizeof *sim->card) : config->card;
    sim->windows = calloc(8, sizeof *sim->windows);
    if (sim->card == NULL || sim->windows == NULL) {
        if (sim->own_card)
            free(sim->card);
        free(sim->windows);
        free(sim);
        return NULL;
    }
    sim->window_capacity = 8;
    memset(sim->interrupts.fds, 0xFF, sizeof sim->interrupts.fds);
    sim->foreign = config->foreign;
    sim->backplane = config->backplane;
    sim->broken = config->broken;
    sim->live.fd = -1;
    memcpy(sim->mac, config->mac, sizeof sim->mac);
    sim->record.fd = -1;
    sim->bus_master = true;
    sim->epoch = 1;
    rl_sim_power_on(sim);
    if (config->left_running)
        rl_sim_leave_running(sim);
    return sim;
}

void rl_sim_free(struct rl_sim *sim)
{
    if (sim == NULL)
        return;
    rl_sim_publish(sim);
    rl_sim_record_flush(sim);
    rl_sim_source_free(sim);
    free(sim->record.buffer);
    free(sim->arrivals);
    free(sim->windows);
    if (sim->own_card)
        free(sim->card);
    free(sim);
}

struct rl_sim_card *rl_sim_card(struct rl_sim *sim)
{
    return sim->card;
}

void rl_sim_bus_master(struct rl_sim *sim, uint32_t on)
{
    sim->bus_master = on != 0;
    sim->changed = true;
    rl_sim_publish(sim); /* bus mastering goes off when the driver has died: counts are final */
}

/* A queue whose head has moved received something. */
static void interrupt(struct rl_sim *sim)
{
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        struct rl_sim_rx_queue *queue = &sim->rx[sim->rx_active[i]];
        if (queue->noted_head != queue->head)
            rl_sim_cause(sim, sim->rx_active[i], false);
        queue->noted_head = queue->head;
    }
    rl_sim_fire(sim);
}

uint32_t rl_sim_step(void *context)
{
    struct rl_sim *sim = context;
    uint32_t moved = 0;
    if (RL_SIM_UNLIKELY(sim->waiting))
        rl_sim_poll_all(sim);
    if (RL_SIM_UNLIKELY(sim->changed))
        rl_sim_refresh(sim);
    if (sim->transmitting)
        moved += rl_sim_transmit(sim);
    moved += rl_sim_receive(sim);
    if (RL_SIM_UNLIKELY(sim->interrupts.on))
        interrupt(sim);
    sim->unpublished += moved != 0;
    if (sim->unpublished != 0 && (moved == 0 || sim->unpublished == RL_SIM_UNPUBLISHED_MAX))
        rl_sim_publish(sim);
    return moved;
}

uint32_t rl_sim_is_waiting(const struct rl_sim *sim)
{
    return sim->live.pending;
}

void rl_sim_function_reset(struct rl_sim *sim)
{
    sim->bus_master = false;
    rl_sim_reset(sim, true, true);
    while (sim->waiting)
        rl_sim_poll_all(sim);
}
