/* Loopback in the MAC (HLREG0.LPBK): the card receives what it sends, and is cut off from its wire.
 *
 * A frame that finds no descriptor is dropped: nothing holds back the sender. */
#include "deliver.h"
#include "transmit.h"

void rl_sim_loop_back(struct rl_sim *sim, const uint8_t *frame, uint32_t length)
{
    struct rl_sim_frame *frames = sim->frames;
    struct rl_sim_layers *layers = sim->layers;
    struct rl_sim_window window = sim->windows[sim->window_last];
    struct rl_sim_layers parsed;
    struct rl_sim_frame looped = {.bytes = frame};
    rl_sim_parse(frame, length, &parsed);
    sim->frames = &looped; /* in the place of those of the wire */
    sim->layers = &parsed;
    if (!rl_sim_deliver_one(sim, &window))
        rl_sim_drop(sim, &looped, &sim->rx[looped.queue].missed);
    sim->frames = frames;
    sim->layers = layers;
}
