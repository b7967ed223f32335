/* Bursts of the 82574L and the 82576: the code that runs per packet. Every word of a descriptor is
 * read and written once, as 64 bits. */
#include "e1000e.h"

#include "../memory.h"
#include "../tag.h"

#include <string.h>

/* Receive descriptor (82574L: extended; 82576: advanced) as the card writes it back, upper word:
 * status, errors from bit 20, length from bit 32, VLAN tag from bit 48; lower word: RSS type, and
 * the hash from bit 32. */
#define RX_DD (UINT64_C(1) << 0)
#define RX_EOP (UINT64_C(1) << 1)
#define RX_FRAME_ERRORS (UINT64_C(0x97) << 24) /* RXE, CXE, SEQ, SE, CE */
#define RX_TOO_LONG (UINT64_C(0xf800) << 32)   /* 2048 bytes and more */
#define RX_WHOLE (RX_EOP | RX_FRAME_ERRORS | RX_TOO_LONG)

/* Transmit descriptor, upper word: length from bit 0, commands from bit 24. That of the 82574L is a
 * legacy one. That of the 82576 is an advanced one, with the length of the frame from bit 46. The
 * card writes DD where that of the 82599 is, so rl_card_reclaim finds it. */
#define TX_EOP (UINT64_C(1) << 24)
#define TX_IFCS (UINT64_C(1) << 25)
#define TX_ADVANCED (UINT64_C(1) << 29 | UINT64_C(3) << 20) /* DEXT, DTYP */
#define TX_RS (UINT64_C(1) << 27)

_Static_assert(RL_BUFFER_DATA == 2048, "RX_TOO_LONG and RCTL know the size of a buffer");

#define PAGE UINT32_C(4096) /* the smallest */

#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* The release fence orders all stores to descriptors before the doorbell. */
static inline void ring_doorbell(const struct rl_descriptor_ring *ring, uint32_t at)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *ring->tail = at & ring->mask;
}

/* Drop a frame with an error, or one part of a frame in several descriptors, which RCTL should
 * prevent. The frame is counted once, at its last part; the buffer is posted again. */
static void drop(struct rl_port *port, uint32_t queue, struct rl_descriptor_ring *ring, uint32_t at)
{
    ring->chained = ring->descriptors[at].upper & RX_EOP ? 0 : UINT32_MAX;
    if (!ring->chained)
        rl_count_error(port, queue, ring->buffers[at]);
    ring->descriptors[at].lower = port->memory->bus[ring->buffers[at]] + port->memory->headroom;
    ring->descriptors[at].upper = 0;
}

/* A packet is taken only when there is a free buffer to post in its place, so every descriptor
 * always has a buffer. */
uint32_t rl_e1000e_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n)
{
    struct rl_card *card = port->queues;
    struct rl_descriptor_ring *ring = &card->rx[queue];
    struct rl_memory *memory = port->memory;
    uint64_t headroom = memory->headroom;
    uint32_t card_rx = rl_ledger_card_rx(port->index);
    uint32_t at = ring->next;
    uint32_t taken = 0;
    while (taken < n && memory->free_count > 0) {
        struct rl_descriptor *descriptor = &ring->descriptors[at];
        uint64_t upper = __atomic_load_n(&descriptor->upper, __ATOMIC_ACQUIRE);
        uint64_t lower = descriptor->lower;
        if (!(upper & RX_DD))
            break;
        if (unlikely((upper & RX_WHOLE) != RX_EOP || ring->chained)) {
            drop(port, queue, ring, at);
            at = (at + 1) & ring->mask;
            n--;
            continue;
        }
        /* IXSM, VP, UDPCS, TCPCS, IPCS, the RSS type, then TCPE and IPE. */
        uint32_t entry = (uint32_t)((lower << 5 | (upper >> 2 & 0x1f)) & 0x1ff);
        entry |= (uint32_t)(upper >> 29 & 3) << 9;
        uint64_t reference[2] = {
            ring->buffers[at] | headroom << 32 | upper >> 32 << 48,
            lower >> 32 | upper >> 48 << 32 | card->port_and_flags[entry],
        };
        memcpy(&refs[taken++], reference, sizeof reference);
        uint32_t fresh = memory->free[--memory->free_count];
        ring->buffers[at] = fresh;
        descriptor->lower = memory->bus[fresh] + headroom;
        descriptor->upper = 0;
        memory->ledger[fresh] = card_rx;
        at = (at + 1) & ring->mask;
    }
    if (unlikely(taken < n && memory->free_count == 0 && ring->descriptors[at].upper & RX_DD))
        rl_counters(memory, port->index, queue)->rx_starved++;
    if (at != ring->next) {
        ring->next = at;
        ring_doorbell(ring, at - 1);
    }
    return taken;
}

/* A tag goes into the frame: the card inserts tags only when it also strips them (CTRL.VME). A
 * frame across the end of a page takes two descriptors: QEMU's cards lose one whose pages do not
 * follow each other in its memory (net_tx_pkt_add_raw_fragment), and count it nowhere. */
static inline uint32_t tx_burst(struct rl_port *port, uint32_t queue,
                                const struct rl_reference *refs, uint32_t n, int advanced)
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
    for (; sent < n && room > 1; sent++) {
        struct rl_reference ref = refs[sent];
        if (unlikely(ref.flags & RL_FLAG_VLAN))
            ref = rl_tagged(port->memory, ref);
        uint64_t begin = bus[ref.buffer] + ref.offset;
        uint64_t command = TX_IFCS | (advanced ? TX_ADVANCED | (uint64_t)ref.length << 46 : 0);
        uint32_t length = ref.length;
        uint32_t here = PAGE - (uint32_t)(begin & (PAGE - 1));
        if (here < length) {
            ring->buffers[at] = RL_NO_BUFFER;
            descriptors[at].lower = begin;
            descriptors[at].upper = command | here;
            begin += here;
            length -= here;
            at = (at + 1) & mask;
            room--;
        }
        ring->buffers[at] = ref.buffer;
        descriptors[at].lower = begin;
        descriptors[at].upper = command | TX_EOP | length;
        bytes += ref.length;
        at = (at + 1) & mask;
        room--;
    }
    if (sent == 0)
        return 0;
    descriptors[(at - 1) & mask].upper |= TX_RS;
    ring->bursts[first] = (struct rl_posted_burst){at, sent, bytes};
    ring->next = at;
    ring_doorbell(ring, at);
    return sent;
}

uint32_t rl_e1000e_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n)
{
    return tx_burst(port, queue, refs, n, 0);
}

uint32_t rl_igb_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n)
{
    return tx_burst(port, queue, refs, n, 1);
}
