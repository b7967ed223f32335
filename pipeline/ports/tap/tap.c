/* Bursts of a TAP: one read or write of the kernel's Documentation/networking/tuntap.rst for each
 * frame, straight into and out of packet memory.
 *
 * io_uring makes batches of them, and is slower: a request costs more than the system call that it
 * saves (docs/performance.md, "A TAP"). There is no virtio-net header (IFF_VNET_HDR): without it
 * the kernel completes the checksums itself, where the sender runs.
 *
 * The kernel holds no buffer: a frame that is not read stays in its own queue, and a write copies
 * the frame before it returns. A buffer counts as sending until `reclaim` has counted it. */
#include "tap.h"

#include "../../../shm/clock.h"
#include "../memory.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#define TAG_BYTES 4
#define MAC_BYTES 12
/* To find a queue empty costs a system call: 0.2 us. After so many, look only now and then. */
#define EMPTY_MAX 64

#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* A frame that is longer than any that can be sent: its buffer is still free. */
static __attribute__((cold)) void drop(struct rl_memory *memory, uint32_t buffer,
                                       struct rl_queue_counters *count)
{
    memory->books->intent.buffers[0] = buffer;
    rl_intend(memory->books, RL_INTENT_ASSIGN, 1, RL_LEDGER_FREE, &count->rx_packets,
              &count->drop_rx_error);
    count->rx_packets++;
    count->drop_rx_error++;
    rl_intent_done(memory->books);
}

uint32_t rl_tap_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n)
{
    struct rl_tap *tap = port->queues;
    if (queue >= port->queue_pairs || !tap->receiving)
        return 0;
    struct rl_memory *memory = port->memory;
    struct rl_tap_queue *own = &tap->queues[queue];
    if (own->empty >= EMPTY_MAX && rl_clock() < own->rests_until)
        return 0;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < n && memory->free_count > 0; i++) {
        uint32_t buffer = memory->free[memory->free_count - 1];
        uint8_t *data = rl_buffer(memory, buffer) + memory->headroom;
        ssize_t length = read(own->fd, data, memory->room - memory->headroom);
        if (length <= 0) /* nothing there, or the interface was removed */
            break;
        if (unlikely(length > port->frame_max)) {
            drop(memory, buffer, rl_counters(memory, port->index, queue));
            continue;
        }
        memory->free_count--;
        refs[taken++] = (struct rl_reference){.buffer = buffer,
                                              .offset = (uint16_t)memory->headroom,
                                              .length = (uint16_t)length,
                                              .port = (uint8_t)port->index};
    }
    if (taken > 0) {
        own->empty = 0;
    } else if (own->empty < EMPTY_MAX) {
        own->empty++;
    } else {
        own->rests_until = rl_clock() + tap->rest;
    }
    return taken;
}

/* A frame with the VLAN tag of its reference, which is not in the buffer. */
static __attribute__((cold)) ssize_t write_tagged(int fd, uint8_t *frame,
                                                  const struct rl_reference *ref)
{
    uint8_t tag[TAG_BYTES] = {0x81, 0x00, (uint8_t)(ref->vlan_tci >> 8), (uint8_t)ref->vlan_tci};
    struct iovec parts[] = {{frame, MAC_BYTES},
                            {tag, sizeof tag},
                            {frame + MAC_BYTES, (size_t)ref->length - MAC_BYTES}};
    return writev(fd, parts, 3);
}

uint32_t rl_tap_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n)
{
    struct rl_tap *tap = port->queues;
    queue = queue < port->queue_pairs ? queue : queue % port->queue_pairs;
    struct rl_tap_queue *own = &tap->queues[queue];
    uint32_t room = own->mask + 1 - (own->head - own->tail);
    n = n < room ? n : room;
    for (uint32_t i = 0; i < n; i++) {
        const struct rl_reference *ref = &refs[i];
        uint8_t *frame = rl_buffer(port->memory, ref->buffer) + ref->offset;
        ssize_t said = unlikely(ref->flags & RL_FLAG_VLAN) ? write_tagged(own->fd, frame, ref)
                                                           : write(own->fd, frame, ref->length);
        /* No room now: the others are tried again. Any other error is EIO, the interface is down,
         * or EBADFD, it was removed. */
        if (unlikely(said < 0) && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
            return i;
        own->sent[own->head++ & own->mask] =
            (struct rl_tap_sent){ref->buffer, said < 0 ? 0 : (uint32_t)said};
    }
    return n;
}

uint32_t rl_tap_reclaim(struct rl_port *port, uint32_t queue)
{
    struct rl_tap *tap = port->queues;
    queue = queue < port->queue_pairs ? queue : queue % port->queue_pairs;
    struct rl_tap_queue *own = &tap->queues[queue];
    uint32_t done = own->head - own->tail;
    while (own->tail != own->head) {
        struct rl_queue_counters *count = rl_counters(port->memory, port->index, queue);
        uint32_t buffers[RL_BATCH_MAX];
        uint32_t n = 0;
        uint64_t bytes = 0;
        int refused = own->sent[own->tail & own->mask].bytes == 0;
        while (own->tail != own->head && n < RL_BATCH_MAX) {
            struct rl_tap_sent sent = own->sent[own->tail & own->mask];
            if ((sent.bytes == 0) != refused)
                break;
            buffers[n++] = sent.buffer;
            bytes += sent.bytes;
            own->tail++;
        }
        if (unlikely(refused)) {
            rl_release(port->memory, buffers, n, RL_OUTCOME(drop_tx_down, blanks_lost), NULL);
            continue;
        }
        count->tx_bytes += bytes;
        rl_buffers_sent(port->memory, buffers, n, count);
    }
    return done;
}

uint32_t rl_tap_scan(const struct rl_tap *tap, uint8_t *seen)
{
    uint32_t sending = 0;
    for (uint32_t q = 0; q < tap->port.queue_pairs; q++) {
        const struct rl_tap_queue *own = &tap->queues[q];
        sending += own->head - own->tail;
        for (uint32_t at = own->tail; seen && at != own->head; at++)
            seen[own->sent[at & own->mask].buffer]++;
    }
    return sending;
}
