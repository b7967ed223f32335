/* The loops of measure.h. */
#include "measure.h"

#include "../../../shm/times.h"
#include "../../../shm/wait.h"
#include "../../ports/memory.h"
#include "ending.h"

#define BULK_MAX 64
#define FRAME_BYTES 60
#define ROUND_MAX 4096

uint64_t rl_measure_produce(struct rl_ring *ring, uint32_t bulk, uint64_t ticks, uint64_t timeout)
{
    struct rl_ring_end end = rl_ring_end_new(ring);
    struct rl_reference batch[BULK_MAX] = {{0}};
    uint64_t done = 0;
    int pushed;
    struct rl_ending ending = rl_begin(ticks, timeout);
    do {
        batch[0].buffer = end.own;
        pushed = rl_ring_push(&end, batch, bulk);
        if (pushed < 0)
            return 0;
        done += (uint64_t)pushed;
    } while (rl_goes_on(&ending, (uint32_t)pushed));
    return rl_ended(&ending, done);
}

uint64_t rl_measure_consume(struct rl_ring *ring, uint32_t bulk, uint64_t ticks, uint64_t timeout)
{
    struct rl_ring_end end = rl_ring_end_new(ring);
    struct rl_reference batch[BULK_MAX];
    uint64_t done = 0;
    int popped;
    struct rl_ending ending = rl_begin(ticks, timeout);
    do {
        popped = rl_ring_pop(&end, batch, bulk);
        if (popped < 0)
            return 0;
        __asm__ volatile("" ::"r"(batch) : "memory");
        done += (uint64_t)popped;
    } while (rl_goes_on(&ending, (uint32_t)popped));
    return rl_ended(&ending, done);
}

/* Step the model until it has nothing to do. */
static void step_until_idle(struct rl_step *model)
{
    while (model->step(model->context))
        ;
}

void rl_measure_receive(struct rl_port *port, struct rl_step *model, uint64_t count, uint32_t batch,
                        struct rl_measured *result)
{
    static struct rl_reference refs[ROUND_MAX + BULK_MAX];
    *result = (struct rl_measured){0};
    while (result->packets < count) {
        uint32_t n = 0, got;
        step_until_idle(model);
        uint64_t start = rl_clock();
        while (n < ROUND_MAX && (got = port->rx_burst(port, 0, refs + n, batch)) > 0)
            n += got;
        result->ticks += rl_clock() - start;
        if (n == 0)
            return;
        for (uint32_t i = 0; i < n; i++)
            rl_buffer_free(port->memory, refs[i].buffer);
        result->packets += n;
    }
}

static void take_buffers(struct rl_port *port, struct rl_reference *refs, uint32_t n)
{
    struct rl_memory *memory = port->memory;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t buffer = memory->free[--memory->free_count];
        memory->ledger[buffer] = rl_ledger_card_tx(port->index, port->index);
        refs[i].buffer = buffer;
        refs[i].offset = (uint16_t)memory->headroom;
        refs[i].length = FRAME_BYTES;
    }
}

void rl_measure_transmit(struct rl_port *port, struct rl_step *model, uint64_t count,
                         uint32_t batch, uint32_t whole, struct rl_measured *result)
{
    static struct rl_reference refs[ROUND_MAX + BULK_MAX];
    struct rl_memory *memory = port->memory;
    uint32_t room = ROUND_MAX; /* packets that the TX ring takes; known after the first round */
    *result = (struct rl_measured){0};
    while (result->packets < count) {
        uint32_t n = 0, burst, sent;
        if (!whole)
            take_buffers(port, refs, room);
        uint64_t start = rl_clock();
        do {
            burst = room - n < batch ? room - n : batch;
            if (whole)
                take_buffers(port, refs + n, burst);
            sent = port->tx_burst(port, 0, refs + n, burst);
            n += sent;
        } while (sent == burst && n < room);
        result->ticks += rl_clock() - start;
        for (uint32_t i = n; i < (whole ? n + burst - sent : room); i++)
            rl_buffer_free(memory, refs[i].buffer);
        room = n;
        step_until_idle(model);
        start = rl_clock();
        while (port->reclaim(port, 0))
            ;
        result->ticks += rl_clock() - start;
        if (n == 0)
            return;
        result->packets += n;
    }
}

void rl_measure_forward(struct rl_port *port, struct rl_step *model, uint64_t count, uint32_t batch,
                        struct rl_measured *result)
{
    struct rl_reference refs[BULK_MAX];
    *result = (struct rl_measured){0};
    while (result->packets < count) {
        uint32_t n = 0, got, sent;
        step_until_idle(model);
        uint64_t start = rl_clock();
        while (port->reclaim(port, 0)) /* packets that the model has sent since the last round */
            ;
        do {
            got = port->rx_burst(port, 0, refs, batch);
            sent = port->tx_burst(port, 0, refs, got);
            n += sent;
        } while (got > 0 && sent == got);
        result->ticks += rl_clock() - start;
        for (uint32_t i = sent; i < got; i++)
            rl_buffer_free(port->memory, refs[i].buffer);
        if (n == 0)
            return;
        result->packets += n;
    }
}

uint32_t rl_measure_round_trips(struct rl_rings_segment *rings, struct rl_ring_end *in,
                                struct rl_ring_end *out, const struct rl_reference *ref,
                                uint64_t *trips, uint32_t n, uint64_t gap, uint32_t wake,
                                uint64_t timeout)
{
    for (uint32_t i = 0; i < n; i++) {
        struct rl_reference answer;
        uint64_t begin = rl_clock() + gap;
        while (rl_clock() < begin)
            rl_pause();
        uint64_t start = rl_clock();
        if (rl_ring_push(in, ref, 1) != 1)
            return i;
        if (wake && rl_ring_is_asleep(&rings->in))
            rl_ring_wake(&rings->in);
        while (rl_ring_pop(out, &answer, 1) != 1)
            if (rl_clock() - start > timeout)
                return i;
        trips[i] = rl_clock() - start;
    }
    return n;
}

uint64_t rl_measure_feed(struct rl_rings_segment *rings, struct rl_ring_end *in,
                         struct rl_ring_end *out, const struct rl_reference *refs, uint32_t n,
                         uint64_t count, uint64_t timeout, uint8_t *memory, const uint8_t *frames,
                         uint32_t bytes)
{
    struct rl_reference answers[BULK_MAX];
    uint32_t most = frames ? n : RL_RING_CAPACITY;
    uint64_t start = rl_clock(), since = start, back = 0;
    while (back < count) {
        if (in->own - out->own + n <= most && rl_ring_room(in, n) == (int)n) {
            for (uint32_t i = 0; frames && i < n; i++)
                memcpy(memory + (uint64_t)refs[i].buffer * RL_BUFFER_STRIDE + refs[i].offset,
                       frames + i * bytes, bytes);
            if (!__atomic_load_n(&rings->times.unwanted, __ATOMIC_RELAXED))
                rl_times_put(&rings->times, in, n, NULL, (int64_t)since);
            rl_ring_put(in, refs, n);
            if (rl_ring_is_asleep(in->ring))
                rl_ring_wake(in->ring);
        }
        int got = rl_ring_pop(out, answers, BULK_MAX);
        if (got < 0)
            return 0;
        back += (uint64_t)got;
        if (got)
            since = rl_clock();
        else if (rl_clock() - since > timeout)
            return 0;
    }
    while (out->own != in->own) {
        int got = rl_ring_pop(out, answers, BULK_MAX);
        if (got < 0 || rl_clock() - since > timeout)
            return 0;
    }
    return rl_clock() - start;
}
