/* Deliver a frame to packet memory, for both kinds of wire.
 *
 * The fast path, rl_sim_deliver, is for a frame that fits one buffer unchanged; all
 * other cases go through rl_sim_deliver_slowly. Decisions that hold for a whole step
 * are not made per frame. */
#ifndef RINGLINE_SIM82599_RECEIVE_H
#define RINGLINE_SIM82599_RECEIVE_H
#include "../chip/registers.h"

#define STATUS_DD 1u
#define STATUS_EOP 2u

enum rl_sim_outcome { RL_SIM_DELIVERED, RL_SIM_NO_ROOM, RL_SIM_LOST };

/* deliver.c */
enum rl_sim_outcome rl_sim_deliver_slowly(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                          const struct rl_sim_frame *frame);
enum rl_sim_outcome rl_sim_abort_dma(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                     uint64_t address, uint32_t bytes);
void rl_sim_reject(struct rl_sim *sim, const struct rl_sim_frame *frame);
void rl_sim_drop(struct rl_sim *sim, const struct rl_sim_frame *frame, uint64_t *reason);

/* live.c: deliver the frame that alone is in `frames`. Returns false when it finds no descriptor.
 */
bool rl_sim_deliver_one(struct rl_sim *sim, struct rl_sim_window *window);

/* open_loop.c */
uint32_t rl_sim_receive_open(struct rl_sim *sim);
uint32_t rl_sim_drop_all(struct rl_sim *sim);

/* Frames begin on a cache line and are padded with zeros to its end, so that vectors
 * can be read past `length`; exactly `length` bytes are written. */
static inline void rl_sim_copy(uint8_t *to, const uint8_t *from, uint32_t length)
{
    if (RL_SIM_LIKELY(length <= 64 && length >= 48)) {
        __builtin_memcpy(to, from, 16);
        __builtin_memcpy(to + 16, from + 16, 16);
        __builtin_memcpy(to + 32, from + 32, 16);
        __builtin_memcpy(to + length - 16, from + length - 16, 16);
        return;
    }
    memcpy(to, from, length);
}

static inline void rl_sim_advance(struct rl_sim_rx_queue *queue)
{
    if (++queue->head == queue->size)
        queue->head = 0;
}

static inline void rl_sim_write_back(uint64_t *descriptor, uint64_t lower, uint64_t upper)
{
    descriptor[0] = lower;
    __atomic_store_n(&descriptor[1], upper, __ATOMIC_RELEASE);
}

static inline void rl_sim_stamp(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                const struct rl_sim_frame *frame)
{
    if (RL_SIM_UNLIKELY(queue->stamps != NULL && queue->head < RL_SIM_STAMPED_DESCRIPTORS))
        queue->stamps[queue->head] = sim->stamps[frame - sim->frames] + (int64_t)sim->stamp_shift;
}

/* Deliver to a queue that has a descriptor. `window` is a copy of the window of the
 * last buffer: through a pointer into the model the compiler would read it again after
 * every store to packet memory. */
static inline enum rl_sim_outcome rl_sim_deliver(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                                 const struct rl_sim_frame *frame,
                                                 struct rl_sim_window *window)
{
    uint32_t head = queue->head;
    uint64_t *descriptor = queue->ring + 2 * (uint64_t)head;
    uint64_t offset = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED) - window->bus;
    uint32_t length = rl_sim_length(frame);
    bool unusual = (length > queue->whole_bytes) | (frame->tagged & queue->strip) |
                   (descriptor[1] & STATUS_DD) | (offset >= window->size) |
                   (length > window->size - offset);
    if (RL_SIM_UNLIKELY(unusual)) {
        enum rl_sim_outcome outcome = rl_sim_deliver_slowly(sim, queue, frame);
        *window = sim->windows[sim->window_last];
        return outcome;
    }
    rl_sim_copy(window->host + offset, frame->bytes, length);
    rl_sim_stamp(sim, queue, frame);
    rl_sim_write_back(descriptor, frame->lower, frame->upper);
    queue->head = ++head == queue->size ? 0 : head;
    queue->count += RL_SIM_ONE_FRAME + length;
    return RL_SIM_DELIVERED;
}

/* Whether the card delivers the frame under the present registers. */
static inline bool rl_sim_deliverable(struct rl_sim *sim, struct rl_sim_frame *frame,
                                      uint32_t epoch)
{
    return RL_SIM_LIKELY(frame->epoch == epoch) || rl_sim_classify(sim, frame) == RL_SIM_DELIVER;
}

static inline void rl_sim_advance_wire(struct rl_sim *sim, uint32_t frames)
{
    sim->at += frames;
    if (sim->at == sim->order_length && sim->more == NULL) {
        sim->at = 0;
        sim->shift += sim->period;
    }
    if (sim->left != UINT64_MAX)
        sim->left -= frames;
}

#endif
