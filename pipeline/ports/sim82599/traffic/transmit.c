/* Send packets from packet memory to the wire, by transmit descriptors.
 *
 * The fast path, `send_plain`, is for a packet in one descriptor without VLAN tag or
 * offloads, while nothing is recorded; all other descriptors go through
 * `take_slowly`. */
#include "../chip/registers.h"

/* The second word of an advanced transmit descriptor. */
#define LENGTH(high) ((uint32_t)(high)&0xFFFF)
#define PAYLEN(high) ((uint32_t)((high) >> 46))
#define PAYLEN_OF(length) ((uint64_t)(length) << 46)
#define PAYLEN_MASK PAYLEN_OF(0x3FFFF)
#define DTYP(high) ((uint32_t)((high) >> 20) & 0xF)
#define DTYP_CONTEXT 2
#define DTYP_DATA 3
#define DTYP_MASK (0xFull << 20)
#define EOP (1ull << 24)
#define IFCS (1ull << 25)
#define RS (1ull << 27)
#define DEXT (1ull << 29)
#define VLE (1ull << 30)
#define TSE (1ull << 31)
#define DD (1ull << 32)
#define INDEX(high) ((uint32_t)((high) >> 36) & 7)
#define POPTS (0x3Full << 40)

#define PLAIN_MASK (DTYP_MASK | EOP | IFCS | DEXT | VLE | TSE | DD | POPTS)
#define PLAIN ((uint64_t)DTYP_DATA << 20 | EOP | IFCS | DEXT)

#define PACKET_MIN 17 /* bytes of the shortest packet, without CRC (datasheet 7.2) */

static inline void sent(struct rl_sim *sim, struct rl_sim_tx_queue *queue,
                        const struct rl_sim_segment *segments, uint32_t count, uint32_t length,
                        int32_t tag)
{
    uint32_t padded = length < RL_SIM_MIN ? RL_SIM_MIN : length;
    sim->tally.tx_classes[rl_sim_size_bin(padded)]++;
    queue->count += RL_SIM_ONE_FRAME + padded;
    if (RL_SIM_UNLIKELY(sim->record.fd >= 0))
        rl_sim_record_frame(sim, segments, count, length, tag);
}

static void refuse(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint32_t kind,
                   const char *why)
{
    uint32_t number = (uint32_t)(queue - sim->tx);
    sim->tally.refused++;
    queue->segment_count = 0;
    rl_sim_fault(sim, kind, number, queue->head, "transmit queue %u descriptor %u: %s; not sent",
                 number, queue->head, why);
}

static void abort_dma(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint64_t address,
                      uint32_t bytes)
{
    uint32_t number = (uint32_t)(queue - sim->tx);
    rl_sim_fault(sim, RL_SIM_FAULT_DMA, number, address,
                 "DMA read of %u bytes from 0x%llx, transmit queue %u descriptor %u: outside "
                 "every window; the queue stops",
                 bytes, (unsigned long long)address, number, queue->head);
    queue->segment_count = 0;
    queue->halted = 1;
}

/* A problem of a packet whose descriptors are complete, or NULL. */
static const char *packet_trouble(const struct rl_sim *sim, const struct rl_sim_tx_queue *queue,
                                  uint32_t length)
{
    if (!(queue->first & IFCS))
        return "IFCS is 0, so the packet would be sent without CRC";
    if (PAYLEN(queue->first) != queue->segment_bytes)
        return "PAYLEN differs from the length of the data";
    if (queue->segment_bytes < PACKET_MIN)
        return "the packet has less than 17 bytes";
    if (length > sim->frame_max + RL_SIM_TAG)
        return "the packet is longer than MAXFRS, or than 1518 bytes without jumbo frames";
    if (!(sim->registers[HLREG0 / 4] & HLREG0_TXCRCEN))
        return "HLREG0 bit 0 is 0, so the packet would be sent without CRC";
    if (length < RL_SIM_MIN && !(sim->registers[HLREG0 / 4] & HLREG0_TXPADEN))
        return "the packet has less than 60 bytes, and HLREG0 bit 10, padding, is 0";
    if ((queue->first & VLE) &&
        (INDEX(queue->first) > 1 || !queue->contexts[INDEX(queue->first)].valid))
        return "VLE is 1, but no context descriptor has set the tag";
    return NULL;
}

static void finish_packet(struct rl_sim *sim, struct rl_sim_tx_queue *queue)
{
    uint32_t length = queue->segment_bytes + (queue->first & VLE ? RL_SIM_TAG : 0);
    const char *trouble = packet_trouble(sim, queue, length);
    if (trouble != NULL) {
        refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR, trouble);
        return;
    }
    for (uint32_t i = 0; i < queue->segment_count; i++) {
        const struct rl_sim_segment *segment = &queue->segments[i];
        if (rl_sim_reach(sim, segment->address, segment->length) == NULL) {
            abort_dma(sim, queue, segment->address, segment->length);
            sim->tally.refused++;
            return;
        }
    }
    int32_t tag = queue->first & VLE ? queue->contexts[INDEX(queue->first)].tag : -1;
    sent(sim, queue, queue->segments, queue->segment_count, length, tag);
    queue->segment_count = 0;
}

static void take_slowly(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint64_t low,
                        uint64_t high)
{
    uint32_t number = (uint32_t)(queue - sim->tx);
    if (!(high & DEXT)) {
        refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR,
               "DEXT is 0, and the model does not support legacy descriptors");
        return;
    }
    if (DTYP(high) == DTYP_CONTEXT && queue->segment_count == 0) {
        if (INDEX(high) > 1) {
            refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR, "a queue has only contexts 0 and 1");
            return;
        }
        queue->contexts[INDEX(high)].tag = (uint16_t)(low >> 16);
        queue->contexts[INDEX(high)].valid = 1;
        return;
    }
    if (DTYP(high) != DTYP_DATA) {
        refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR,
               "DTYP is neither 3 (data), nor 2 (context) in front of a packet");
        return;
    }
    if (high & (TSE | POPTS)) {
        refuse(sim, queue, RL_SIM_FAULT_UNMODELLED,
               "the model does not support segmentation and checksum insertion");
        return;
    }
    if (high & DD)
        rl_sim_fault(sim, RL_SIM_FAULT_TX_DESCRIPTOR, number, queue->head,
                     "transmit queue %u descriptor %u was offered to the card with DD set: "
                     "software would take it for sent",
                     number, queue->head);
    if (queue->segment_count == RL_SIM_SEGMENTS) {
        refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR, "a packet has at most 40 descriptors");
        return;
    }
    if (queue->segment_count == 0) {
        queue->first = high;
        queue->segment_bytes = 0;
    }
    queue->segments[queue->segment_count].address = low;
    queue->segments[queue->segment_count++].length = LENGTH(high);
    queue->segment_bytes += LENGTH(high);
    if (high & EOP)
        finish_packet(sim, queue);
}

static inline void write_back(uint64_t *descriptor)
{
    descriptor[0] = 0;
    __atomic_store_n(&descriptor[1], DD, __ATOMIC_RELEASE);
}

/* With WTHRESH 0 a descriptor with RS is written back at once. With a threshold RS is
 * ignored: all complete descriptors are written back when their number reaches it. */
static inline void complete(struct rl_sim_tx_queue *queue, uint64_t *descriptor, uint64_t high)
{
    if (RL_SIM_UNLIKELY(queue->threshold != 0)) {
        if (++queue->unwritten < queue->threshold)
            return;
        for (uint32_t i = queue->unwritten; i-- > 0;) {
            uint32_t at = (queue->head + queue->size - i % queue->size) % queue->size;
            write_back(queue->ring + 2 * (uint64_t)at);
        }
        queue->unwritten = 0;
    } else if (high & RS) {
        write_back(descriptor);
    }
}

/* The number of descriptors that the card may take from the queue now. */
static uint32_t look_at_tail(struct rl_sim *sim, struct rl_sim_tx_queue *queue)
{
    uint32_t tail = __atomic_load_n(queue->tail_register, __ATOMIC_ACQUIRE);
    uint32_t number = (uint32_t)(queue - sim->tx);
    if (RL_SIM_UNLIKELY(queue->halted))
        return 0;
    if (RL_SIM_UNLIKELY(tail >= queue->size)) {
        rl_sim_fault(sim, RL_SIM_FAULT_TAIL, number, tail,
                     "TDT[%u] = %u, but the ring has %u descriptors: the queue stops", number, tail,
                     queue->size);
        queue->halted = 1;
        return 0;
    }
    uint32_t ready = tail + (tail < queue->head ? queue->size : 0) - queue->head;
    if (RL_SIM_UNLIKELY(ready != 0 && queue->ring == NULL)) {
        abort_dma(sim, queue,
                  sim->registers[rl_sim_tx_register(number, TX_TDBAL) / 4] |
                      (uint64_t)sim->registers[rl_sim_tx_register(number, TX_TDBAH) / 4] << 32,
                  16);
        return 0;
    }
    return ready < 2 * RL_SIM_BATCH ? ready : 2 * RL_SIM_BATCH;
}

/* Whether the registers and the queue allow the fast path. */
static bool may_be_plain(const struct rl_sim *sim, const struct rl_sim_tx_queue *queue)
{
    uint32_t wanted = HLREG0_TXCRCEN | HLREG0_TXPADEN;
    return (sim->registers[HLREG0 / 4] & wanted) == wanted && queue->threshold == 0 &&
           queue->segment_count == 0 && sim->record.fd < 0;
}

/* Send the first of `ready` packets that qualify for the fast path, at most up to the
 * ring's end; returns how many. Locals keep the state in processor registers. */
static uint32_t send_plain(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint32_t ready)
{
    const struct rl_sim_window window = sim->windows[sim->window_last];
    uint64_t *descriptor = queue->ring + 2 * (uint64_t)queue->head;
    uint64_t *classes = sim->tally.tx_classes;
    uint32_t span = sim->frame_max + RL_SIM_TAG - PACKET_MIN;
    uint32_t to_end = queue->size - queue->head;
    uint32_t most = ready < to_end ? ready : to_end;
    uint64_t count = 0;
    uint32_t done;
    for (done = 0; done < most; done++, descriptor += 2) {
        uint64_t offset = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED) - window.bus;
        uint64_t high = __atomic_load_n(&descriptor[1], __ATOMIC_RELAXED);
        uint32_t length = LENGTH(high);
        if (RL_SIM_UNLIKELY((high & (PLAIN_MASK | PAYLEN_MASK)) != (PLAIN | PAYLEN_OF(length)) ||
                            length - PACKET_MIN > span || offset >= window.size ||
                            length > window.size - offset))
            break;
        uint32_t padded = length < RL_SIM_MIN ? RL_SIM_MIN : length;
        classes[rl_sim_size_bin(padded)]++;
        count += RL_SIM_ONE_FRAME + padded;
        if (RL_SIM_UNLIKELY(high & RS))
            write_back(descriptor);
    }
    queue->count += count;
    queue->head = done == to_end ? 0 : queue->head + done;
    return done;
}

static uint32_t send_queue(struct rl_sim *sim, struct rl_sim_tx_queue *queue)
{
    uint32_t ready = look_at_tail(sim, queue);
    uint32_t done = 0;
    if (RL_SIM_UNLIKELY(sim->transits != NULL))
        rl_sim_note_departures(sim, queue, ready);
    while (done < ready && !queue->halted) {
        if (may_be_plain(sim, queue))
            done += send_plain(sim, queue, ready - done);
        if (done == ready)
            break;
        uint64_t *descriptor = queue->ring + 2 * (uint64_t)queue->head;
        uint64_t low = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED);
        uint64_t high = __atomic_load_n(&descriptor[1], __ATOMIC_RELAXED);
        take_slowly(sim, queue, low, high);
        if (queue->halted)
            break;
        complete(queue, descriptor, high);
        if (++queue->head == queue->size)
            queue->head = 0;
        done++;
    }
    return done;
}

uint32_t rl_sim_transmit(struct rl_sim *sim)
{
    uint32_t moved = 0;
    for (uint32_t i = 0; i < sim->tx_count; i++)
        moved += send_queue(sim, &sim->tx[sim->tx_active[i]]);
    if (RL_SIM_UNLIKELY(moved != 0 && sim->transmit_unchecked))
        rl_sim_check_transmit(sim);
    return moved;
}
