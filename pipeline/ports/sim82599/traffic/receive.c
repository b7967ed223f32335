/* Receive frames from the wire. A closed-loop wire waits for room, so no frame is
 * dropped for lack of descriptors. A wire without end does not wait for a queue that stays
 * full: it has frames for the other queues, and leaves out those for this one. */
#include "deliver.h"

#define FETCH_AHEAD 24      /* descriptors */
#define STUCK_NS 100000000u /* time until waiting for a disabled queue is a fault */
#define STALL_NS 1000000u   /* time until a wire without end passes by a full queue */

/* The queue was full at the last step, and no descriptor came since. This is rare while all
 * queues are served, so the clock costs nothing there. */
static void note_full(struct rl_sim_rx_queue *queue)
{
    uint64_t now = rl_sim_now();
    if (queue->full_at == 0)
        queue->full_at = now;
    queue->stalled = now - queue->full_at >= STALL_NS;
}

void rl_sim_look_at_tails(struct rl_sim *sim)
{
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        uint32_t number = sim->rx_active[i];
        struct rl_sim_rx_queue *queue = &sim->rx[number];
        uint32_t tail = __atomic_load_n(queue->tail_register, __ATOMIC_ACQUIRE);
        if (RL_SIM_UNLIKELY(queue->halted))
            continue;
        if (RL_SIM_UNLIKELY(tail >= queue->size)) {
            rl_sim_fault(sim, RL_SIM_FAULT_TAIL, number, tail,
                         "RDT[%u] = %u, but the ring has %u descriptors: the queue stops", number,
                         tail, queue->size);
            queue->halted = 1;
            tail = queue->head;
        }
        if (RL_SIM_UNLIKELY(tail == queue->head && tail == queue->tail)) {
            note_full(queue);
        } else {
            queue->full_at = 0;
            queue->stalled = 0;
        }
        queue->tail = tail;
        if (RL_SIM_UNLIKELY(queue->ring == NULL && tail != queue->head))
            rl_sim_abort_dma(sim, queue,
                             sim->registers[rl_sim_rx_register(number, RX_RDBAL) / 4] |
                                 (uint64_t)sim->registers[rl_sim_rx_register(number, RX_RDBAH) / 4]
                                     << 32,
                             16);
    }
}

/* A closed-loop wire waits without limit, but waiting for a disabled queue is a fault
 * every STUCK_NS. */
static void wait_for_queue(struct rl_sim *sim, uint32_t number)
{
    uint64_t now = rl_sim_now();
    if (sim->stuck_at == 0)
        sim->stuck_at = now;
    if (now - sim->stuck_at < STUCK_NS)
        return;
    sim->stuck_at = now;
    rl_sim_fault(sim, RL_SIM_FAULT_QUEUE, number, 0,
                 "the next frame is for receive queue %u, which is not enabled: the wire waits",
                 number);
}

/* Handle a frame that was not delivered. Returns 0 when the wire must wait with it. */
static uint32_t handle_undelivered(struct rl_sim *sim, const struct rl_sim_frame *frame,
                                   enum rl_sim_outcome outcome)
{
    const struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
    if (outcome == RL_SIM_NO_ROOM && !queue->halted) {
        if (queue->enabled && queue->stalled && sim->left == UINT64_MAX) {
            sim->passed++;
            return 1;
        }
        if (!queue->enabled)
            wait_for_queue(sim, frame->queue);
        return 0;
    }
    rl_sim_drop(sim, frame, &sim->tally.dma);
    return 1;
}

/* Prefetch the cache line that a later frame is written to: it is in the cache of the
 * core that used the buffer last. A prefetch of an invalid address does no harm. */
static inline void fetch_ahead(const uint64_t *ring, uint32_t head, uint32_t size,
                               const struct rl_sim_window *window)
{
    if (RL_SIM_LIKELY(head + FETCH_AHEAD < size)) {
        const uint64_t *ahead = &ring[2 * (uint64_t)(head + FETCH_AHEAD)];
        uint64_t bus = __atomic_load_n(ahead, __ATOMIC_RELAXED);
        __builtin_prefetch((void *)((uintptr_t)window->host + (bus - window->bus)), 1);
    }
}

/* Receive `run` frames, whose indices are at `order`; returns how many left the wire. */
static uint32_t run_closed(struct rl_sim *sim, const uint32_t *order, uint32_t run)
{
    struct rl_sim_window window = sim->windows[sim->window_last];
    struct rl_sim_frame *frames = sim->frames;
    uint32_t epoch = sim->epoch;
    for (uint32_t i = 0; i < run; i++) {
        struct rl_sim_frame *frame = &frames[order[i]];
        if (RL_SIM_UNLIKELY(!rl_sim_deliverable(sim, frame, epoch))) {
            rl_sim_reject(sim, frame);
            continue;
        }
        struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
        enum rl_sim_outcome outcome = RL_SIM_NO_ROOM;
        if (RL_SIM_LIKELY(queue->head != queue->tail)) {
            fetch_ahead(queue->ring, queue->head, queue->size, &window);
            outcome = rl_sim_deliver(sim, queue, frame, &window);
        }
        if (RL_SIM_LIKELY(outcome == RL_SIM_DELIVERED))
            sim->tally.classes[frame->size_class]++;
        else if (!handle_undelivered(sim, frame, outcome))
            return i;
    }
    return run;
}

/* Deliver the first of `run` frames that qualify for the fast path, to the only queue; returns how
 * many. Locals keep the state in processor registers. */
static uint32_t deliver_plain(struct rl_sim *sim, const uint32_t *order, uint32_t run)
{
    uint32_t number = sim->rx_active[0];
    struct rl_sim_rx_queue *queue = &sim->rx[number];
    const struct rl_sim_window window = sim->windows[sim->window_last];
    const struct rl_sim_frame *frames = sim->frames;
    uint64_t *ring = queue->ring, *classes = sim->tally.classes;
    uint32_t head = queue->head, tail = queue->tail, size = queue->size;
    uint32_t epoch = sim->epoch, longest = queue->whole_bytes;
    uint8_t strip = queue->strip;
    uint64_t count = 0;
    uint32_t done = 0;
    if (queue->stamps != NULL)
        return 0;
    for (; done < run && head != tail; done++) {
        const struct rl_sim_frame *frame = &frames[order[done]];
        uint64_t *descriptor = ring + 2 * (uint64_t)head;
        uint64_t offset = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED) - window.bus;
        uint32_t length = rl_sim_length(frame);
        if (RL_SIM_UNLIKELY((frame->epoch != epoch) | (frame->queue != number) |
                            (length > longest) | (frame->tagged & strip) |
                            (descriptor[1] & STATUS_DD) | (offset >= window.size) |
                            (length > window.size - offset)))
            break;
        fetch_ahead(ring, head, size, &window);
        rl_sim_copy(window.host + offset, frame->bytes, length);
        rl_sim_write_back(descriptor, frame->lower, frame->upper);
        classes[frame->size_class]++;
        count += RL_SIM_ONE_FRAME + length;
        head = head + 1 == size ? 0 : head + 1;
    }
    queue->head = head;
    queue->count += count;
    return done;
}

static uint32_t receive_closed(struct rl_sim *sim)
{
    uint32_t budget = RL_SIM_BATCH * sim->rx_count;
    uint32_t moved = 0;
    sim->passed = 0;
    while (moved < budget && sim->left != 0 && !rl_sim_at_end(sim)) {
        uint32_t run = sim->order_length - sim->at;
        run = run < budget - moved ? run : budget - moved;
        run = run < sim->left ? run : (uint32_t)sim->left;
        sim->stamp_shift = sim->shift;
        const uint32_t *order = sim->order + sim->at;
        uint32_t done = sim->rx_count == 1 ? deliver_plain(sim, order, run) : 0;
        done += run_closed(sim, order + done, run - done);
        rl_sim_advance_wire(sim, done);
        moved += done;
        if (done < run)
            break;
    }
    moved -= sim->passed;
    if (moved)
        sim->stuck_at = 0;
    return moved;
}

uint32_t rl_sim_receive(struct rl_sim *sim)
{
    if (RL_SIM_UNLIKELY(sim->live.fd >= 0)) {
        rl_sim_look_at_tails(sim);
        return rl_sim_receive_live(sim);
    }
    if (sim->order_length == 0)
        return 0;
    sim->asked = false;
    if (!sim->receiving || sim->loopback)
        return sim->open ? rl_sim_drop_all(sim) : 0;
    if (sim->receive_unchecked && sim->rx_count != 0)
        rl_sim_check_receive(sim);
    rl_sim_look_at_tails(sim);
    return sim->open ? rl_sim_receive_open(sim) : receive_closed(sim);
}
