/* Frames from the wire into packet memory, as receive descriptors say where.
 *
 * The short way is for a frame that fits one buffer and goes in as it is; all
 * that is unusual goes through `deliver_slowly`. What can be decided once a step
 * is not decided here once a frame. */
#include "registers.h"

#define STATUS_DD 1u
#define STATUS_EOP 2u
#define STUCK_NS 100000000u /* a wire that waits so long for a queue that is off says so */

enum outcome { DELIVERED, NO_ROOM, LOST };

/* What a step has received, beside what queues count. */
struct tally {
    int64_t bytes; /* taken by the MAC and not, or not yet, on a queue; may be negative */
    uint64_t filtered;
    uint64_t filtered_bytes;
    uint64_t oversize;
    uint64_t undersize;
    uint64_t bad_bytes;
    uint64_t no_space;
    uint64_t disabled;
    uint64_t dma;
    uint64_t unheard; /* came while the card did not receive */
    uint64_t unheard_bytes;
};

/* Frames lie at cache lines and are followed by zeros up to the next, so whole
 * vectors may be read; what is written is exactly the frame. */
static inline void copy(uint8_t *to, const uint8_t *from, uint32_t length)
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

static inline void advance(struct rl_sim_rx_queue *queue)
{
    if (++queue->head == queue->size)
        queue->head = 0;
}

static enum outcome abort_dma(struct rl_sim *sim, struct rl_sim_rx_queue *queue, uint64_t address,
                              uint32_t bytes)
{
    uint32_t number = (uint32_t)(queue - sim->rx);
    rl_sim_fault(sim, RL_SIM_FAULT_DMA, number, address,
                 "DMA write of %u bytes to 0x%llx, receive queue %u descriptor %u: outside every "
                 "window; the queue stands still",
                 bytes, (unsigned long long)address, number, queue->head);
    queue->halted = 1;
    queue->tail = queue->head;
    return LOST;
}

static inline void write_back(uint64_t *descriptor, uint64_t lower, uint32_t status,
                              uint32_t length, uint32_t tag)
{
    descriptor[0] = lower;
    __atomic_store_n(&descriptor[1], status | (uint64_t)length << 32 | (uint64_t)tag << 48,
                     __ATOMIC_RELEASE);
}

static uint32_t crc32(const uint8_t *bytes, uint32_t length)
{
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (uint32_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* A frame that is changed on its way, or that takes several descriptors. */
static enum outcome deliver_slowly(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                   const struct rl_sim_frame *frame)
{
    uint8_t image[RL_SIM_LENGTH_MAX + RL_SIM_TAG + RL_SIM_CRC];
    uint32_t number = (uint32_t)(queue - sim->rx);
    uint32_t length = frame->length;
    uint32_t status = frame->status & ~STATUS_EOP;
    uint32_t tag = 0;
    memcpy(image, frame->bytes, length);
    if (sim->crc_bytes) {
        uint32_t crc = crc32(image, length);
        memcpy(image + length, &crc, sizeof crc);
        length += sim->crc_bytes;
    }
    if (frame->tagged && queue->strip) {
        tag = rl_sim_be16(image + 14);
        length -= RL_SIM_TAG;
        memmove(image + 12, image + 12 + RL_SIM_TAG, length - 12);
    }
    uint32_t pieces = (length + queue->buffer_bytes - 1) / queue->buffer_bytes;
    uint32_t room = queue->tail + (queue->tail < queue->head ? queue->size : 0) - queue->head;
    if (pieces >= queue->size) {
        rl_sim_fault(sim, RL_SIM_FAULT_RX_DESCRIPTOR, number, 0,
                     "a frame of %u bytes never fits the %u descriptors of receive queue %u: lost",
                     length, queue->size, number);
        return LOST;
    }
    if (pieces > room)
        return NO_ROOM;
    for (uint32_t done = 0; done < length;) {
        uint64_t *descriptor = queue->ring + 2 * (uint64_t)queue->head;
        uint64_t address = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED);
        uint32_t part = length - done < queue->buffer_bytes ? length - done : queue->buffer_bytes;
        uint8_t *to = rl_sim_reach(sim, address, part);
        if (descriptor[1] & STATUS_DD)
            rl_sim_fault(sim, RL_SIM_FAULT_RX_DESCRIPTOR, number, queue->head,
                         "receive queue %u descriptor %u was handed to the card with DD set: "
                         "software would take it as received",
                         number, queue->head);
        if (to == NULL)
            return abort_dma(sim, queue, address, part);
        memcpy(to, image + done, part);
        done += part;
        write_back(descriptor, frame->lower, status | (done == length ? STATUS_EOP : 0), part,
                   done == length ? tag : 0);
        advance(queue);
    }
    queue->frames++;
    queue->bytes += frame->length;
    return DELIVERED;
}

/* The queue has a descriptor. `window` is a copy of the one that held the last
 * buffer: behind a pointer into the model it would have to be read again after
 * every store to packet memory. */
static inline enum outcome deliver(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                   const struct rl_sim_frame *frame, struct rl_sim_window *window)
{
    uint32_t head = queue->head;
    uint64_t *descriptor = queue->ring + 2 * (uint64_t)head;
    uint64_t offset = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED) - window->bus;
    uint32_t length = frame->length;
    bool unusual = (length > queue->whole_bytes) | (frame->tagged & queue->strip) |
                   (descriptor[1] & STATUS_DD) | (offset >= window->size) |
                   (length > window->size - offset);
    if (RL_SIM_UNLIKELY(unusual)) {
        enum outcome outcome = deliver_slowly(sim, queue, frame);
        *window = sim->windows[sim->window_last];
        return outcome;
    }
    copy(window->host + offset, frame->bytes, length);
    write_back(descriptor, frame->lower, frame->status, length, 0);
    queue->head = ++head == queue->size ? 0 : head;
    queue->frames++;
    queue->bytes += length;
    return DELIVERED;
}

static void look_at_tails(struct rl_sim *sim)
{
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        uint32_t number = sim->rx_active[i];
        struct rl_sim_rx_queue *queue = &sim->rx[number];
        uint32_t tail = __atomic_load_n(queue->tail_register, __ATOMIC_ACQUIRE);
        if (RL_SIM_UNLIKELY(queue->halted))
            continue;
        if (RL_SIM_UNLIKELY(tail >= queue->size)) {
            rl_sim_fault(sim, RL_SIM_FAULT_TAIL, number, tail,
                         "RDT[%u] = %u, but the ring has %u descriptors: the queue stands still",
                         number, tail, queue->size);
            queue->halted = 1;
            tail = queue->head;
        }
        queue->tail = tail;
        if (RL_SIM_UNLIKELY(queue->ring == NULL && tail != queue->head))
            abort_dma(sim, queue,
                      sim->registers[rl_sim_rx_register(number, RX_RDBAL) / 4] |
                          (uint64_t)sim->registers[rl_sim_rx_register(number, RX_RDBAH) / 4] << 32,
                      16);
    }
}

static void reject(const struct rl_sim *sim, const struct rl_sim_frame *frame, struct tally *tally)
{
    uint32_t length = sim->layers[frame - sim->frames].length;
    if (frame->fate == RL_SIM_FILTERED) {
        tally->filtered++;
        tally->filtered_bytes += length;
        return;
    }
    *(frame->fate == RL_SIM_OVERSIZE ? &tally->oversize : &tally->undersize) += 1;
    tally->bad_bytes += length;
}

/* A frame that the MAC took but that reaches no buffer. */
static void lose(struct rl_sim *sim, const struct rl_sim_frame *frame, struct tally *tally,
                 uint64_t *reason)
{
    sim->classes[frame->size_class]++;
    tally->bytes += frame->length;
    *reason += 1;
}

/* A closed-loop wire waits for as long as it takes, but does not keep quiet
 * about a queue that will never take anything. */
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

static inline struct rl_sim_frame *next_frame(struct rl_sim *sim, uint32_t index)
{
    struct rl_sim_frame *frame = &sim->frames[index];
    if (RL_SIM_UNLIKELY(frame->epoch != sim->epoch))
        rl_sim_classify(sim, frame);
    return frame;
}

static void advance_wire(struct rl_sim *sim, uint32_t frames)
{
    sim->at += frames;
    if (sim->at == sim->order_length)
        sim->at = 0;
    if (sim->left != UINT64_MAX)
        sim->left -= frames;
}

/* A frame that did not simply go in. Returns 0 when the wire has to wait with it. */
static uint32_t settle_closed(struct rl_sim *sim, const struct rl_sim_frame *frame,
                              enum outcome outcome, struct tally *tally)
{
    const struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
    if (outcome == NO_ROOM && !queue->halted) {
        if (!queue->enabled)
            wait_for_queue(sim, frame->queue);
        return 0;
    }
    lose(sim, frame, tally, &tally->dma);
    return 1;
}

/* As many frames as one pass through `order` and the budget allow; returns how
 * many left the wire. */
static uint32_t run_closed(struct rl_sim *sim, struct tally *tally, const uint32_t *order,
                           uint32_t run)
{
    struct rl_sim_window window = sim->windows[sim->window_last];
    struct rl_sim_frame *frames = sim->frames;
    uint32_t epoch = sim->epoch;
    for (uint32_t i = 0; i < run; i++) {
        struct rl_sim_frame *frame = &frames[order[i]];
        if (RL_SIM_UNLIKELY(frame->epoch != epoch))
            rl_sim_classify(sim, frame);
        if (RL_SIM_UNLIKELY(frame->fate != RL_SIM_DELIVER)) {
            reject(sim, frame, tally);
            continue;
        }
        struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
        enum outcome outcome = NO_ROOM;
        if (RL_SIM_LIKELY(queue->head != queue->tail))
            outcome = deliver(sim, queue, frame, &window);
        if (RL_SIM_LIKELY(outcome == DELIVERED))
            sim->classes[frame->size_class]++;
        else if (!settle_closed(sim, frame, outcome, tally))
            return i;
    }
    return run;
}

static uint32_t receive_closed(struct rl_sim *sim, struct tally *tally)
{
    uint32_t budget = RL_SIM_BATCH * sim->rx_count;
    uint32_t moved = 0;
    while (moved < budget && sim->left != 0) {
        uint32_t run = sim->order_length - sim->at;
        run = run < budget - moved ? run : budget - moved;
        run = run < sim->left ? run : (uint32_t)sim->left;
        uint32_t done = run_closed(sim, tally, sim->order + sim->at, run);
        advance_wire(sim, done);
        moved += done;
        if (done < run)
            break;
    }
    if (moved)
        sim->stuck_at = 0;
    return moved;
}

/* Frames in the packet buffer go on in order; the first that finds no
 * descriptor, and may not be dropped for it, holds up all behind it. */
static uint32_t drain_held(struct rl_sim *sim, struct tally *tally)
{
    struct rl_sim_window window = sim->windows[sim->window_last];
    uint32_t moved = 0;
    for (; sim->held_count; moved++) {
        const struct rl_sim_frame *frame = next_frame(sim, sim->held[sim->held_first]);
        struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
        enum outcome outcome = NO_ROOM;
        if (queue->head != queue->tail)
            outcome = deliver(sim, queue, frame, &window);
        if (outcome == DELIVERED)
            tally->bytes -= frame->length; /* counted when it was held */
        else if (outcome == LOST || queue->halted)
            tally->dma++;
        else if (!queue->enabled)
            tally->disabled++;
        else if (queue->drop)
            queue->missed++;
        else
            break;
        sim->held_bytes -= frame->length;
        sim->held_first = (sim->held_first + 1) % sim->held_capacity;
        sim->held_count--;
    }
    return moved;
}

static void hold(struct rl_sim *sim, uint32_t index, const struct rl_sim_frame *frame,
                 struct tally *tally)
{
    if (sim->held_bytes + frame->length > sim->held_room || sim->held_count == sim->held_capacity) {
        tally->no_space++;
        tally->unheard_bytes += frame->length;
        return;
    }
    sim->held[(sim->held_first + sim->held_count++) % sim->held_capacity] = index;
    sim->held_bytes += frame->length;
    sim->classes[frame->size_class]++;
    tally->bytes += frame->length;
}

/* How many frames have come off an open-loop wire since the last time. */
static uint32_t due(struct rl_sim *sim)
{
    uint64_t now = rl_sim_now();
    if (sim->began == 0)
        sim->began = now;
    uint64_t all = (uint64_t)((double)(now - sim->began) * sim->rate_ns);
    uint64_t frames = all - sim->arrived;
    frames = frames < RL_SIM_OPEN_MAX ? frames : RL_SIM_OPEN_MAX;
    frames = frames < sim->left ? frames : sim->left;
    sim->arrived += frames;
    return (uint32_t)frames;
}

static uint32_t receive_open(struct rl_sim *sim, struct tally *tally)
{
    uint32_t moved = drain_held(sim, tally);
    uint32_t frames = due(sim);
    struct rl_sim_window window = sim->windows[sim->window_last];
    for (uint32_t i = 0; i < frames; i++) {
        uint32_t index = sim->order[sim->at];
        const struct rl_sim_frame *frame = next_frame(sim, index);
        advance_wire(sim, 1);
        if (RL_SIM_UNLIKELY(frame->fate != RL_SIM_DELIVER)) {
            reject(sim, frame, tally);
            continue;
        }
        struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
        enum outcome outcome = NO_ROOM;
        if (RL_SIM_LIKELY(sim->held_count == 0 && queue->head != queue->tail))
            outcome = deliver(sim, queue, frame, &window);
        if (RL_SIM_LIKELY(outcome == DELIVERED))
            sim->classes[frame->size_class]++;
        else if (outcome == LOST || queue->halted)
            lose(sim, frame, tally, &tally->dma);
        else if (!queue->enabled)
            lose(sim, frame, tally, &tally->disabled);
        else if (queue->drop && sim->held_count == 0)
            lose(sim, frame, tally, &queue->missed);
        else
            hold(sim, index, frame, tally);
    }
    return moved + frames;
}

static void count_queues(struct rl_sim *sim, struct tally *tally)
{
    struct rl_sim_wire *wire = &sim->card->wire;
    for (uint32_t i = 0; i < sim->rx_count; i++) {
        uint32_t number = sim->rx_active[i];
        struct rl_sim_rx_queue *queue = &sim->rx[number];
        uint32_t counter = sim->registers[RQSMR / 4 + number / 4] >> number % 4 * 8 & 0xF;
        rl_sim_add(sim, QPRC + 0x40 * counter, queue->frames);
        rl_sim_add(sim, QPRDC + 0x40 * counter, queue->missed);
        rl_sim_add_octets(sim, QBRC_L + 0x40 * counter, queue->bytes);
        tally->bytes += (int64_t)queue->bytes;
        wire->queue_delivered[number] += queue->frames;
        wire->delivered += queue->frames;
        wire->delivered_bytes += queue->bytes;
        wire->dropped_no_descriptor += queue->missed;
        queue->frames = 0;
        queue->missed = queue->bytes = 0;
    }
}

static void count(struct rl_sim *sim, struct tally *tally)
{
    struct rl_sim_wire *wire = &sim->card->wire;
    uint64_t good = 0;
    count_queues(sim, tally);
    for (uint32_t i = 0; i < 24; i++) {
        uint32_t frames = sim->classes[i];
        if (frames == 0)
            continue;
        sim->classes[i] = 0;
        good += frames;
        rl_sim_add(sim, PRC64 + 4 * (i % 8), frames);
        if (i >= 8)
            rl_sim_add(sim, i < 16 ? MPRC : BPRC, frames);
    }
    uint64_t bad = tally->oversize + tally->undersize;
    uint64_t bytes = (uint64_t)tally->bytes;
    uint64_t all = good + bad + tally->filtered;
    uint64_t all_bytes = bytes + tally->bad_bytes + tally->filtered_bytes;
    rl_sim_add(sim, GPRC, good);
    rl_sim_add_octets(sim, GORCL, bytes + RL_SIM_CRC * good);
    rl_sim_add(sim, TPR, all);
    rl_sim_add_octets(sim, TORL, all_bytes + RL_SIM_CRC * all);
    rl_sim_add(sim, ROC, tally->oversize);
    rl_sim_add(sim, RUC, tally->undersize);
    rl_sim_add(sim, MPC, tally->no_space);
    wire->offered += all + tally->no_space + tally->unheard;
    wire->offered_bytes += all_bytes + tally->unheard_bytes;
    wire->held = sim->held_count;
    wire->dropped_filtered += tally->filtered;
    wire->dropped_oversize += tally->oversize;
    wire->dropped_undersize += tally->undersize;
    wire->dropped_no_space += tally->no_space;
    wire->dropped_disabled += tally->disabled + tally->unheard;
    wire->dropped_dma += tally->dma;
    wire->finished = sim->left == 0 && sim->held_count == 0;
}

/* The card does not listen: an open-loop wire loses what comes meanwhile. */
static uint32_t lose_all(struct rl_sim *sim, struct tally *tally)
{
    uint32_t frames = sim->began != 0 ? due(sim) : 0;
    for (uint32_t i = 0; i < frames; i++) {
        tally->unheard_bytes += sim->layers[sim->order[sim->at]].length;
        advance_wire(sim, 1);
    }
    tally->unheard += frames;
    return frames;
}

uint32_t rl_sim_receive(struct rl_sim *sim)
{
    struct tally tally = {0};
    uint32_t moved;
    if (sim->order_length == 0)
        return 0;
    if (sim->receiving) {
        if (sim->receive_unchecked && sim->rx_count != 0)
            rl_sim_check_receive(sim);
        look_at_tails(sim);
        moved = sim->rate > 0 ? receive_open(sim, &tally) : receive_closed(sim, &tally);
    } else {
        moved = sim->rate > 0 ? lose_all(sim, &tally) : 0;
    }
    if (moved)
        count(sim, &tally);
    return moved;
}
