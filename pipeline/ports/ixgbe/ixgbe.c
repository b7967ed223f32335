/* Bursts of the 82599: the code that runs per packet. Every word of a descriptor is
 * read and written once, as 64 bits. */
#include "ixgbe.h"

#include "../memory.h"

#include <string.h>

/* Advanced receive descriptor as the card writes it back, upper word: status,
 * errors from bit 20, length from bit 32, VLAN tag from bit 48. */
#define RX_DD (UINT64_C(1) << 0)
#define RX_EOP (UINT64_C(1) << 1)
#define RX_FRAME_ERRORS (UINT64_C(0x3f) << 24)
#define RX_CHECKSUM_ERRORS (UINT64_C(3) << 30) /* L4E, IPE */
#define RX_LONG (UINT64_C(0xf800) << 32)       /* 2048 bytes and more */
#define RX_WHOLE (RX_EOP | RX_FRAME_ERRORS)

/* Advanced transmit descriptors, upper word. A packet takes one descriptor, with its
 * length in two fields: DTALEN from bit 0, PAYLEN from bit 46. */
#define TX_EOP_IFCS_DEXT (UINT64_C(0x23) << 24)
#define TX_DTYP_DATA (UINT64_C(3) << 20)
#define TX_RS (UINT64_C(1) << 27)
#define TX_LENGTH(bytes) ((uint64_t)(bytes) << 46 | (bytes))
#define TX_CONTEXT (UINT64_C(1) << 29 | UINT64_C(2) << 20) /* DEXT, DTYP */

_Static_assert(offsetof(struct rl_card, rx) % 64 == 0 &&
                   sizeof(struct rl_descriptor_ring) % 64 == 0,
               "a ring begins on a cache line");
_Static_assert(RL_BUFFER_DATA == 2048, "RX_LONG knows what fits every buffer");

#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* The release fence orders all stores to descriptors before the doorbell. */
static inline void ring_doorbell(const struct rl_descriptor_ring *ring, uint32_t at)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *ring->tail = at & ring->mask;
}

/* Drop a frame with an error, one that is too long, or one part of a frame in several
 * descriptors, which SRRCTL and MAXFRS should prevent; 0: it is none of these. A frame is counted
 * once, at its last part; the buffer is posted again. */
static RL_APART int drop(struct rl_port *port, uint32_t queue, struct rl_descriptor_ring *ring,
                         uint32_t at, uint64_t upper)
{
    if ((upper & RX_WHOLE) == RX_EOP && (uint16_t)(upper >> 32) <= port->frame_max &&
        !ring->chained)
        return 0;
    ring->chained = upper & RX_EOP ? 0 : UINT32_MAX;
    if (!ring->chained)
        rl_count_error(port, queue, ring->buffers[at]);
    ring->descriptors[at].lower = port->memory->bus[ring->buffers[at]] + port->memory->headroom;
    ring->descriptors[at].upper = 0;
    return 1;
}

/* A packet is taken only when there is a free buffer to post in its place, so every
 * descriptor always has a buffer. The locals are copies because every store to a ring
 * might alias the originals: measured, this saves a third of the time. */
uint32_t rl_ixgbe_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                           uint32_t n)
{
    struct rl_card *card = port->queues;
    struct rl_descriptor_ring *ring = &card->rx[queue];
    struct rl_memory *memory = port->memory;
    const uint64_t *bus = memory->bus;
    const uint32_t *free = memory->free + memory->free_count;
    uint32_t *ledger = memory->ledger;
    uint32_t free_count = memory->free_count;
    uint64_t headroom = memory->headroom;
    uint32_t card_rx = rl_ledger_card_rx(port->index);
    uint64_t chained = ring->chained;
    uint32_t mask = ring->mask;
    uint32_t at = ring->next;
    struct rl_descriptor *descriptor = ring->descriptors + at;
    uint32_t *held = ring->buffers + at;
    struct rl_reference *ref = refs;
    const struct rl_reference *end = refs + (n < free_count ? n : free_count);
    for (; ref < end; at++, descriptor++, held++) {
        if (unlikely(at > mask)) {
            at = 0;
            descriptor = ring->descriptors;
            held = ring->buffers;
        }
        uint64_t upper = __atomic_load_n(&descriptor->upper, __ATOMIC_ACQUIRE);
        uint64_t lower = descriptor->lower;
        /* Index of `port_and_flags`: status bits VP, UDPCS, L4I, IPCS, then the RSS type. */
        uint32_t entry = (uint32_t)(lower << 4 | (upper >> 3 & 0xf)) & 0xff;
        uint64_t expected = upper & (RX_WHOLE | RX_LONG | RX_CHECKSUM_ERRORS | RX_DD);
        if (unlikely((expected | chained) != (RX_EOP | RX_DD))) {
            if (!(upper & RX_DD))
                break;
            if (drop(port, queue, ring, at, upper)) {
                chained = ring->chained;
                end--;
                continue;
            }
            /* ... then L4E, IPE, and UDP: some revisions set L4E for UDP without checksum. */
            entry |= (uint32_t)(upper >> 30 & 3) << 8 | (uint32_t)(lower >> 9 & 1) << 10;
        }
        uint64_t reference[2] = {
            *held | headroom << 32 | upper >> 32 << 48,
            lower >> 32 | upper >> 48 << 32 | card->port_and_flags[entry],
        };
        memcpy(ref++, reference, sizeof reference);
        uint32_t fresh = *--free;
        *held = fresh;
        descriptor->lower = bus[fresh] + headroom;
        descriptor->upper = 0;
        ledger[fresh] = card_rx;
    }
    uint32_t taken = (uint32_t)(ref - refs);
    memory->free_count = free_count - taken;
    at &= mask;
    if (unlikely(taken == free_count && taken < n && ring->descriptors[at].upper & RX_DD))
        rl_counters(memory, port->index, queue)->rx_starved++;
    if (at != ring->next) {
        ring->next = at;
        ring_doorbell(ring, at - 1);
    }
    return taken;
}

uint32_t rl_ixgbe_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                           uint32_t n)
{
    struct rl_card *card = port->queues;
    struct rl_descriptor_ring *ring = &card->tx[queue];
    struct rl_descriptor *descriptors = ring->descriptors;
    const uint64_t *bus = port->memory->bus;
    uint32_t mask = ring->mask;
    uint32_t first = ring->next;
    uint32_t at = first;
    uint32_t room = (ring->clean - first - 1) & mask;
    uint32_t bytes = 0;
    uint32_t sent = 0;
    n = n < RL_BATCH_MAX ? n : RL_BATCH_MAX;
    n = n < room ? n : room;
    for (; sent < n; sent++) {
        const struct rl_reference *ref = &refs[sent];
        uint64_t upper = TX_EOP_IFCS_DEXT | TX_DTYP_DATA | TX_LENGTH(ref->length);
        if (unlikely(ref->flags & (RL_FLAG_VLAN | RL_FLAG_FIX_CHECKSUMS))) {
            /* A VLAN tag and the place of the headers are not in this descriptor but in the
             * queue's context, which holds until the next context descriptor. */
            uint64_t bits = upper; /* `upper` stays in a register */
            uint64_t context = rl_ixgbe_context(port->memory, ref, ring->context, &bits);
            upper = bits;
            if (ring->context != context) {
                if (sent + 2 > room)
                    break;
                ring->context = context;
                ring->buffers[at] = RL_NO_BUFFER;
                descriptors[at].lower = (uint32_t)context;
                descriptors[at].upper = TX_CONTEXT | context >> 32;
                at = (at + 1) & mask;
                room--;
                n = n < room ? n : room;
            }
        }
        ring->buffers[at] = ref->buffer;
        descriptors[at].lower = bus[ref->buffer] + ref->offset;
        descriptors[at].upper = upper;
        bytes += ref->length;
        at = (at + 1) & mask;
    }
    if (sent == 0)
        return 0;
    descriptors[(at - 1) & mask].upper |= TX_RS;
    ring->bursts[first] = (struct rl_posted_burst){at, sent, bytes};
    ring->next = at;
    ring_doorbell(ring, at);
    return sent;
}
