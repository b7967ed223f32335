/* Bursts of an AF_XDP socket: the code that runs per packet.
 *
 * The kernel header linux/if_xdp.h and the kernel's Documentation/networking/af_xdp.rst describe
 * the rings. A producer writes entries, then its index with release; a consumer reads the index
 * with acquire, then the entries. The number of buffers that the kernel holds for receiving is
 * constant, and no larger than the RX and the fill ring, so neither ever overflows. The same holds
 * for the TX and the completion ring.
 *
 * Errors of a system call need no answer. EAGAIN, EBUSY and ENOBUFS mean that the kernel has no
 * room now, and ENETDOWN that the interface is down: descriptors stay on the ring, and the next
 * call tries again. */
#include "chunks.h"

#include "../interfaces/complete.h"
#include "../memory.h"
#include "../tag.h"

#include <sys/socket.h>

#define NEED_WAKEUP 1u /* XDP_RING_NEED_WAKEUP */
#define WAKES_MAX 3    /* in copy mode the kernel sends at most 32 packets per system call */

#define unlikely(condition) __builtin_expect(!!(condition), 0)

static inline uint32_t filled(const struct rl_xdp_ring *ring)
{
    return __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE) - ring->own;
}

static inline void publish(uint32_t *index, uint32_t value)
{
    __atomic_store_n(index, value, __ATOMIC_RELEASE);
}

static inline int needs_wakeup(const struct rl_xdp_ring *ring)
{
    return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) & NEED_WAKEUP;
}

/* The buffer of an address, if the kernel holds it for this use and queue; else no buffer: then
 * the address is not one of ours, and is skipped. */
static inline uint32_t buffer_of(const struct rl_xdp *xdp, uint64_t address, uint32_t use)
{
    const struct rl_memory *memory = xdp->port.memory;
    uint64_t buffer = rl_xdp_buffer(address);
    if (unlikely(buffer >= memory->buffers || (xdp->held[buffer] & 0xffff0000) != use))
        return UINT32_MAX;
    return (uint32_t)buffer;
}

static inline void post(struct rl_xdp *xdp, uint32_t queue, uint32_t buffer)
{
    struct rl_xdp_ring *fill = &xdp->queues[queue].fill;
    ((uint64_t *)fill->entries)[fill->own++ & fill->mask] = rl_xdp_chunk(buffer);
    xdp->held[buffer] = RL_XDP_RECEIVING | queue << 16;
    xdp->port.memory->ledger[buffer] = rl_ledger_card_rx(xdp->port.index);
}

/* Drop a frame that is longer than any that can be sent; its buffer is posted again. */
static __attribute__((cold)) void drop(struct rl_xdp *xdp, uint32_t queue, uint32_t buffer)
{
    rl_count_error(&xdp->port, queue, buffer);
    post(xdp, queue, buffer);
}

/* A packet is taken only when there is a free buffer to post in its place. */
uint32_t rl_xdp_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n)
{
    struct rl_xdp *xdp = port->queues;
    struct rl_xdp_queue *socket = &xdp->queues[queue];
    struct rl_xdp_ring *rx = &socket->rx;
    struct rl_memory *memory = port->memory;
    const struct rl_xdp_descriptor *descriptors = rx->entries;
    uint32_t use = RL_XDP_RECEIVING | queue << 16;
    uint32_t there = filled(rx);
    uint32_t taken = 0;
    if (there == 0) {
        if (xdp->busy_polling || needs_wakeup(&socket->fill))
            recvfrom(socket->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
        return 0;
    }
    if (unlikely(n > memory->free_count)) {
        n = memory->free_count;
        rl_counters(memory, port->index, queue)->rx_starved += n < there;
    }
    for (; there > 0 && taken < n; there--) {
        const struct rl_xdp_descriptor *descriptor = &descriptors[rx->own++ & rx->mask];
        uint32_t buffer = buffer_of(xdp, descriptor->address, use);
        if (unlikely(buffer == UINT32_MAX))
            continue;
        if (unlikely(descriptor->length > RL_FRAME_MAX)) {
            drop(xdp, queue, buffer);
            continue;
        }
        struct rl_reference *ref = &refs[taken++];
        *ref = (struct rl_reference){.buffer = buffer,
                                     .offset = rl_xdp_offset(descriptor->address),
                                     .length = (uint16_t)descriptor->length,
                                     .port = (uint8_t)port->index};
        if (xdp->completing)
            rl_complete(rl_buffer(memory, buffer) + ref->offset, ref->length);
        if (xdp->hashing && rl_xdp_hash(xdp->toeplitz, rl_buffer(memory, buffer) + ref->offset,
                                        ref->length, &ref->rss_hash))
            ref->flags = RL_FLAG_HASH;
        xdp->held[buffer] = 0;
        post(xdp, queue, memory->free[--memory->free_count]);
    }
    publish(rx->consumer, rx->own);
    publish(socket->fill.producer, socket->fill.own);
    if (xdp->busy_polling || needs_wakeup(&socket->fill))
        recvfrom(socket->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    return taken;
}

/* Let the kernel send what is on the TX ring, unless it does so by itself. */
static inline void wake_sender(const struct rl_xdp_queue *socket)
{
    const struct rl_xdp_ring *tx = &socket->tx;
    for (int i = 0; i < WAKES_MAX && needs_wakeup(tx); i++) {
        uint32_t before = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE);
        if (before == tx->own)
            return;
        sendto(socket->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
        if (__atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE) == before)
            return;
    }
}

uint32_t rl_xdp_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n)
{
    struct rl_xdp *xdp = port->queues;
    struct rl_xdp_queue *socket = &xdp->queues[queue];
    struct rl_xdp_ring *tx = &socket->tx;
    struct rl_xdp_descriptor *descriptors = tx->entries;
    uint32_t use = RL_XDP_SENDING | queue << 16;
    uint32_t room = tx->mask + 1 - socket->sending;
    n = n < room ? n : room;
    for (uint32_t i = 0; i < n; i++) {
        struct rl_reference ref = refs[i];
        if (unlikely(ref.flags & RL_FLAG_VLAN))
            ref = rl_tagged(port->memory, ref);
        descriptors[tx->own++ & tx->mask] =
            (struct rl_xdp_descriptor){rl_xdp_frame(ref.buffer, ref.offset), ref.length, 0};
        xdp->held[ref.buffer] = use | ref.length;
    }
    if (n == 0)
        return 0;
    socket->sending += n;
    publish(tx->producer, tx->own);
    wake_sender(socket);
    return n;
}

uint32_t rl_xdp_reclaim(struct rl_port *port, uint32_t queue)
{
    struct rl_xdp *xdp = port->queues;
    struct rl_xdp_queue *socket = &xdp->queues[queue];
    struct rl_xdp_ring *completion = &socket->completion;
    const uint64_t *addresses = completion->entries;
    uint32_t use = RL_XDP_SENDING | queue << 16;
    uint32_t done = 0;
    if (socket->sending == 0)
        return 0;
    for (uint32_t there = filled(completion); there > 0;) {
        struct rl_queue_counters *count = rl_counters(port->memory, port->index, queue);
        uint32_t sent[RL_BATCH_MAX];
        uint32_t n = 0;
        uint64_t bytes = 0;
        for (; there > 0 && n < RL_BATCH_MAX; there--) {
            uint32_t buffer = buffer_of(xdp, addresses[completion->own++ & completion->mask], use);
            if (unlikely(buffer == UINT32_MAX))
                continue;
            bytes += xdp->held[buffer] & 0xffff;
            xdp->held[buffer] = 0;
            sent[n++] = buffer;
        }
        publish(completion->consumer, completion->own);
        socket->sending -= n;
        count->tx_bytes += bytes;
        rl_buffers_sent(port->memory, sent, n, count);
        done += n;
    }
    if (done == 0)
        wake_sender(socket);
    return done;
}
