/* An open-loop wire: frames arrive by the clock. A frame without a descriptor and
 * without room in the packet buffer is dropped, as by the card. */
#include "deliver.h"

/* The frame that is delivered next was due at this time. */
static inline void note_arrival(struct rl_sim *sim, const struct rl_sim_rx_queue *queue,
                                uint64_t due)
{
    if (RL_SIM_UNLIKELY(sim->transits != NULL))
        rl_sim_note_arrival(sim, queue->ring[2 * (uint64_t)queue->head], due);
}

/* Deliver the frames in the packet buffer in order. A frame that has no descriptor and
 * must not be dropped (DROP_EN is off) blocks those behind it. */
static uint32_t drain_held(struct rl_sim *sim)
{
    struct rl_sim_window window = sim->windows[sim->window_last];
    uint32_t moved = 0;
    for (; sim->held_count; moved++) {
        struct rl_sim_frame *frame = &sim->frames[sim->held[sim->held_first]];
        struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
        enum rl_sim_outcome outcome = RL_SIM_NO_ROOM;
        if (queue->head != queue->tail) {
            note_arrival(sim, queue, 0);
            outcome = rl_sim_deliver(sim, queue, frame, &window);
        }
        if (outcome == RL_SIM_DELIVERED)
            sim->tally.bytes -= rl_sim_length(frame); /* counted when it was held */
        else if (outcome == RL_SIM_LOST || queue->halted)
            sim->tally.dma++;
        else if (!queue->enabled)
            sim->tally.disabled++;
        else if (queue->drop)
            queue->missed++;
        else
            break;
        sim->held_bytes -= rl_sim_length(frame);
        sim->held_first = (sim->held_first + 1) % sim->held_capacity;
        sim->held_count--;
    }
    return moved;
}

static void hold(struct rl_sim *sim, uint32_t index, const struct rl_sim_frame *frame)
{
    if (sim->held_bytes + rl_sim_length(frame) > sim->held_room ||
        sim->held_count == sim->held_capacity) {
        sim->tally.no_space++;
        sim->tally.not_receiving_bytes += rl_sim_length(frame);
        return;
    }
    sim->held[(sim->held_first + sim->held_count++) % sim->held_capacity] = index;
    sim->held_bytes += rl_sim_length(frame);
    sim->tally.classes[frame->size_class]++;
    sim->tally.bytes += rl_sim_length(frame);
}

/* The number of frames that are due by their pace, at most `limit`. Every time counts from the
 * begin of the wire, so that no delay adds up. */
static uint32_t due_by_pace(const struct rl_sim *sim, uint64_t now, uint64_t limit)
{
    double reached = (double)(now - sim->began) * sim->pace;
    uint64_t shift = sim->shift;
    uint32_t at = sim->at;
    uint32_t frames = 0;
    while (frames < limit && (double)(sim->due[at] + shift) <= reached) {
        frames++;
        if (++at == sim->order_length) {
            at = 0;
            shift += sim->period;
        }
    }
    return frames;
}

/* The number of frames that have arrived since the last call, as far as they are at hand. */
static uint32_t due(struct rl_sim *sim)
{
    uint64_t now = rl_sim_now();
    if (sim->began == 0)
        sim->began = now;
    if (sim->left == 0 || rl_sim_at_end(sim))
        return 0;
    uint64_t limit = sim->more != NULL ? sim->order_length - sim->at : RL_SIM_OPEN_MAX;
    limit = limit < RL_SIM_OPEN_MAX ? limit : RL_SIM_OPEN_MAX;
    limit = limit < sim->left ? limit : sim->left;
    if (sim->due != NULL)
        return due_by_pace(sim, now, limit);
    uint64_t all = (uint64_t)((double)(now - sim->began) * sim->rate_ns);
    uint64_t frames = all - sim->arrived;
    frames = frames < limit ? frames : limit;
    sim->arrived += frames;
    return (uint32_t)frames;
}

/* When the next frame is due; `number` frames have arrived before it. */
static uint64_t due_time(const struct rl_sim *sim, uint64_t number)
{
    double since = sim->due != NULL ? (double)(sim->due[sim->at] + sim->shift) / sim->pace
                                    : (double)(number + 1) / sim->rate_ns;
    return sim->began + (uint64_t)since;
}

uint32_t rl_sim_receive_open(struct rl_sim *sim)
{
    uint32_t moved = drain_held(sim);
    uint32_t frames = due(sim);
    struct rl_sim_window window = sim->windows[sim->window_last];
    for (uint32_t i = 0; i < frames; i++) {
        uint32_t index = sim->order[sim->at];
        struct rl_sim_frame *frame = &sim->frames[index];
        sim->stamp_shift = sim->shift;
        uint64_t due_at =
            RL_SIM_UNLIKELY(sim->transits != NULL) ? due_time(sim, sim->arrived - frames + i) : 0;
        rl_sim_advance_wire(sim, 1);
        if (RL_SIM_UNLIKELY(!rl_sim_deliverable(sim, frame, sim->epoch))) {
            rl_sim_reject(sim, frame);
            continue;
        }
        struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
        enum rl_sim_outcome outcome = RL_SIM_NO_ROOM;
        if (RL_SIM_LIKELY(sim->held_count == 0 && queue->head != queue->tail)) {
            note_arrival(sim, queue, due_at);
            outcome = rl_sim_deliver(sim, queue, frame, &window);
        }
        if (RL_SIM_LIKELY(outcome == RL_SIM_DELIVERED))
            sim->tally.classes[frame->size_class]++;
        else if (outcome == RL_SIM_LOST || queue->halted)
            rl_sim_drop(sim, frame, &sim->tally.dma);
        else if (!queue->enabled)
            rl_sim_drop(sim, frame, &sim->tally.disabled);
        else if (queue->drop && sim->held_count == 0)
            rl_sim_drop(sim, frame, &queue->missed);
        else
            hold(sim, index, frame);
    }
    return moved + frames;
}

/* The card does not receive: all frames that arrive are dropped. */
uint32_t rl_sim_drop_all(struct rl_sim *sim)
{
    uint32_t frames = sim->began != 0 ? due(sim) : 0;
    for (uint32_t i = 0; i < frames; i++) {
        sim->tally.not_receiving_bytes += sim->layers[sim->order[sim->at]].length;
        rl_sim_advance_wire(sim, 1);
    }
    sim->tally.not_receiving += frames;
    return frames;
}
