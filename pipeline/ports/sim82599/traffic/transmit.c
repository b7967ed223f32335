/* Send packets from packet memory to the wire, by transmit descriptors.
 *
 * The fast path, `send_plain`, is for a packet in one descriptor without VLAN tag or
 * offloads, while nothing is recorded; all other descriptors go through
 * `take_slowly`. */
#include "../chip/registers.h"
#include "transmit.h"

#define PLAIN_MASK (DTYP_MASK | EOP | IFCS | DEXT | VLE | TSE | DD | POPTS)
#define PLAIN ((uint64_t)DTYP_DATA << 20 | EOP | IFCS | DEXT)

#define PACKET_MIN 17 /* bytes of the shortest packet, without CRC (datasheet 7.2) */

void rl_sim_gather(struct rl_sim *sim, uint8_t *to, const struct rl_sim_segment *segments,
                   uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = segments[i].length;
        const uint8_t *from = rl_sim_reach(sim, segments[i].address, length);
        if (RL_SIM_LIKELY(from != NULL))
            memcpy(to, from, length);
        else
            rl_sim_copy_across(sim, segments[i].address, to, length, false);
        to += length;
    }
}

static bool is_watched(const struct rl_sim *sim)
{
    return sim->record.fd >= 0 || sim->live.fd >= 0 || sim->loopback;
}

static void count_sent(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint32_t length)
{
    sim->tally.tx_classes[rl_sim_size_bin(length)]++;
    queue->count += RL_SIM_ONE_FRAME + length;
}

void rl_sim_emit(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint8_t *frame, uint32_t length,
                 int32_t tag)
{
    if (tag >= 0) {
        uint32_t type = sim->vlan_type;
        const uint8_t inserted[RL_SIM_TAG] = {(uint8_t)(type >> 8), (uint8_t)type,
                                              (uint8_t)(tag >> 8), (uint8_t)tag};
        memmove(frame + 12 + sizeof inserted, frame + 12, length - 12);
        memcpy(frame + 12, inserted, sizeof inserted);
        length += RL_SIM_TAG;
    }
    if (length < RL_SIM_MIN) {
        memset(frame + length, 0, RL_SIM_MIN - length);
        length = RL_SIM_MIN;
    }
    count_sent(sim, queue, length);
    if (sim->loopback) {
        rl_sim_loop_back(sim, frame, length);
        return;
    }
    if (sim->record.fd >= 0)
        rl_sim_record_frame(sim, frame, length);
    if (sim->live.fd >= 0)
        rl_sim_live_send(sim, frame, length);
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
    if (!(queue->first & TSE) && PAYLEN(queue->first) != queue->segment_bytes)
        return "PAYLEN differs from the length of the data";
    if (queue->segment_bytes < PACKET_MIN)
        return "the packet has less than 17 bytes";
    if (!(queue->first & TSE) && length > sim->frame_max + RL_SIM_TAG)
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
        if (rl_sim_reach(sim, segment->address, segment->length) == NULL &&
            !rl_sim_covered(sim, segment->address, segment->length)) {
            abort_dma(sim, queue, segment->address, segment->length);
            sim->tally.refused++;
            return;
        }
    }
    int32_t tag = queue->first & VLE ? CONTEXT_TAG(queue->contexts[INDEX(queue->first)].low) : -1;
    if (queue->first & (TSE | IXSM | TXSM)) {
        trouble = rl_sim_offload(sim, queue, tag);
        if (trouble != NULL)
            refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR, trouble);
    } else if (is_watched(sim)) {
        rl_sim_gather(sim, sim->scratch, queue->segments, queue->segment_count);
        rl_sim_emit(sim, queue, sim->scratch, queue->segment_bytes, tag);
    } else {
        count_sent(sim, queue, length < RL_SIM_MIN ? RL_SIM_MIN : length);
    }
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
        queue->contexts[INDEX(high)].low = low;
        queue->contexts[INDEX(high)].high = high;
        queue->contexts[INDEX(high)].valid = 1;
        return;
    }
    if (DTYP(high) != DTYP_DATA) {
        refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR,
               "DTYP is neither 3 (data), nor 2 (context) in front of a packet");
        return;
    }
    if (high & POPTS & ~(IXSM | TXSM)) {
        refuse(sim, queue, RL_SIM_FAULT_UNMODELLED, "the model does not support IPsec");
        return;
    }
    if (high & DD)
        rl_sim_lint(sim, RL_SIM_FAULT_TX_DESCRIPTOR, number, queue->head,
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
    if (queue->segment_bytes + LENGTH(high) > RL_SIM_PACKET_MAX) {
        refuse(sim, queue, RL_SIM_FAULT_TX_DESCRIPTOR, "the packet is longer than PAYLEN can say");
        return;
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
static void write_back_last(struct rl_sim_tx_queue *queue, uint32_t head)
{
    for (uint32_t i = queue->unwritten; i-- > 0;) {
        uint32_t at = (head + queue->size - i % queue->size) % queue->size;
        write_back(queue->ring + 2 * (uint64_t)at);
    }
    queue->unwritten = 0;
}

static inline void complete(struct rl_sim_tx_queue *queue, uint64_t *descriptor, uint64_t high)
{
    if (RL_SIM_UNLIKELY(queue->threshold != 0)) {
        if (++queue->unwritten < queue->threshold)
            return;
        write_back_last(queue, queue->head);
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
           queue->segment_count == 0 && !is_watched(sim);
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

/* With a vector, the card writes back what is below WTHRESH when it has nothing else to do: so it
 * does when its interrupt timer expires, sooner or later. */
static void interrupt(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint32_t done)
{
    uint32_t number = (uint32_t)(queue - sim->tx);
    if (!rl_sim_has_vector(sim, number, true))
        return;
    if (queue->unwritten != 0 && done == 0 && queue->segment_count == 0)
        write_back_last(queue, (queue->head + queue->size - 1) % queue->size);
    rl_sim_cause(sim, number, true);
}

static uint32_t send_queue(struct rl_sim *sim, struct rl_sim_tx_queue *queue)
{
    uint32_t ready = look_at_tail(sim, queue);
    uint32_t done = 0;
    if (RL_SIM_UNLIKELY(sim->transits != NULL))
        rl_sim_note_departures(sim, queue, ready);
    while (done < ready && !queue->halted && !rl_sim_live_full(sim)) {
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
    if (RL_SIM_UNLIKELY(sim->interrupts.on) && (done || queue->unwritten))
        interrupt(sim, queue, done);
    return done;
}

uint32_t rl_sim_transmit(struct rl_sim *sim)
{
    uint32_t moved = 0;
    if (RL_SIM_UNLIKELY(sim->loopback))
        rl_sim_look_at_tails(sim);
    for (uint32_t i = 0; i < sim->tx_count; i++)
        moved += send_queue(sim, &sim->tx[sim->tx_active[i]]);
    if (RL_SIM_UNLIKELY(moved != 0 && sim->transmit_unchecked))
        rl_sim_check_transmit(sim);
    return moved;
}
