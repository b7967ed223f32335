/* Bursts of virtio-net: the code that runs per packet. Section numbers are those of Virtio 1.2.
 *
 * The device may be broken or hostile: an element that it returns is used only if it has it. */
#include "virtio.h"

#include "../../../workers/headers/checksums.h"
#include "../memory.h"
#include "../tag.h"
#include "../virtqueue/driver.h"

#include <linux/virtio_net.h>
#include <string.h>

#define ETHERNET_BYTES 14
#define UDP_CHECKSUM_AT 6 /* of a UDP header: it is never written as 0 (RFC 768) */

_Static_assert(RL_BUFFER_HEADROOM >= sizeof(struct virtio_net_hdr_v1_hash), "a header fits there");

#define unlikely(condition) __builtin_expect(!!(condition), 0)

static inline void publish(struct rl_virtio_queue *queue)
{
    if (!rl_virtq_publish(&queue->ring))
        return;
    *queue->doorbell = queue->number;
    queue->doorbells++;
}

/* The device has returned what it did not have. Packets for the port are dropped from now on: on a
 * queue that takes none, they would hold up those for other ports until `examine` ends the port. */
static __attribute__((cold)) uint32_t fail(struct rl_port *port, struct rl_virtio_queue *queue)
{
    queue->broken = 1;
    port->ready = 0;
    return 0;
}

/* How many elements can be read; 0 for a broken queue. */
static inline uint32_t pending(struct rl_port *port, struct rl_virtio_queue *queue)
{
    if (unlikely(queue->broken))
        return 0;
    uint32_t n = rl_virtq_pending(&queue->ring);
    return unlikely(n > queue->ring.mask + 1) ? fail(port, queue) : n;
}

static inline int has(const struct rl_virtio_queue *queue, uint32_t id)
{
    return id <= queue->ring.mask && queue->buffers[id] != RL_NO_BUFFER;
}

/* 5.1.6.4.1: the sender left a checksum to us. The field holds the sum of the pseudo header. */
static __attribute__((cold)) int complete(uint8_t *frame, uint32_t length,
                                          const struct virtio_net_hdr_v1 *header)
{
    uint32_t start = header->csum_start, field = start + header->csum_offset;
    if (field + 2 > length)
        return 0;
    uint32_t sum = rl_checksum(frame + start, length - start, 0);
    if (sum == 0 && header->csum_offset == UDP_CHECKSUM_AT)
        sum = 0xffff;
    rl_put_be16(frame + field, sum);
    return 1;
}

/* Move a tag from the frame to its reference: the device cannot do it. */
static __attribute__((cold)) void strip(uint8_t *frame, struct rl_reference *ref)
{
    ref->vlan_tci = (uint16_t)(frame[RL_MAC_BYTES + 2] << 8 | frame[RL_MAC_BYTES + 3]);
    ref->flags |= RL_FLAG_VLAN;
    memmove(frame + RL_TAG_BYTES, frame, RL_MAC_BYTES);
    ref->offset += RL_TAG_BYTES;
    ref->length -= RL_TAG_BYTES;
}

/* Fill the reference of a received frame, whose header lies before it. Returns 0 for a frame that
 * is too short or too long, or that is more than one frame (GSO). */
static inline int describe(const struct rl_virtio *card, struct rl_virtio_queue *rx, uint8_t *frame,
                           uint32_t written, struct rl_reference *ref)
{
    struct virtio_net_hdr_v1_hash header = {.hash_report = 0};
    memcpy(&header, frame - card->header, sizeof header.hdr);
    if (card->header == sizeof header)
        memcpy(&header, frame - sizeof header, sizeof header);
    __asm__ volatile("" : : : "memory"); /* it is not read again: the device may change it */
    uint32_t length = written - card->header;
    if (unlikely(written < card->header + ETHERNET_BYTES || length > card->port.frame_max ||
                 header.hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE))
        return 0;
    ref->length = (uint16_t)length;
    if (header.hash_report != VIRTIO_NET_HASH_REPORT_NONE) {
        ref->rss_hash = header.hash_value;
        ref->flags |= RL_FLAG_HASH;
    }
    if (unlikely(header.hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        if (!complete(frame, length, &header.hdr))
            return 0;
        rx->completed++;
    } else if (header.hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID) {
        ref->flags |= RL_FLAG_L4_OK;
    }
    if (unlikely(card->strip && frame[RL_MAC_BYTES] == 0x81 && frame[RL_MAC_BYTES + 1] == 0 &&
                 length >= ETHERNET_BYTES + RL_TAG_BYTES))
        strip(frame, ref);
    return 1;
}

/* A packet is taken only when there is a free buffer to post in its place, so every descriptor
 * always has a buffer, until the port drains. */
uint32_t rl_virtio_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n)
{
    struct rl_virtio *card = port->queues;
    struct rl_virtio_queue *rx = &card->rx[queue];
    struct rl_memory *memory = port->memory;
    uint32_t there = pending(port, rx);
    if (there == 0)
        return 0;
    if (unlikely(memory->free_count < n && memory->free_count < there))
        rl_counters(memory, port->index, queue)->rx_starved++;
    n = n < there ? n : there;
    n = n < memory->free_count ? n : memory->free_count;
    uint32_t taken = 0, read = 0;
    uint16_t ids[RL_BATCH_MAX];
    for (; read < n; read++) {
        struct rl_virtq_element element = rl_virtq_peek(&rx->ring, read);
        if (unlikely(!has(rx, element.id))) {
            fail(port, rx);
            break;
        }
        uint32_t buffer = rx->buffers[element.id];
        rx->buffers[element.id] = RL_NO_BUFFER; /* if it comes again, the device is broken */
        ids[read] = (uint16_t)element.id;
        uint8_t *frame = rl_buffer(memory, buffer) + memory->headroom;
        struct rl_reference ref = {
            .buffer = buffer, .offset = (uint16_t)memory->headroom, .port = (uint8_t)port->index};
        if (unlikely(!describe(card, rx, frame, element.length, &ref))) {
            rl_count_error(port, queue, buffer);
            rl_buffer_free(memory, buffer);
        } else {
            refs[taken++] = ref;
        }
    }
    for (uint32_t i = 0; i < read && !card->draining; i++) {
        uint32_t buffer = memory->free[--memory->free_count];
        memory->ledger[buffer] = rl_ledger_card_rx(port->index);
        rx->buffers[ids[i]] = buffer;
        rx->ring.descriptors[ids[i]].address =
            memory->bus[buffer] + memory->headroom - card->header;
        rl_virtq_offer(&rx->ring, ids[i]);
    }
    rl_virtq_done(&rx->ring, read);
    if (rx->ring.written != rx->ring.published)
        publish(rx);
    return taken;
}

uint32_t rl_virtio_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n)
{
    struct rl_virtio *card = port->queues;
    struct rl_virtio_queue *tx = &card->tx[queue];
    const struct rl_memory *memory = port->memory;
    if (unlikely(tx->broken))
        return 0;
    n = n < tx->spares ? n : tx->spares;
    uint32_t half = (tx->ring.mask + 1) / 2;
    for (uint32_t i = 0; i < n; i++) {
        struct rl_reference ref = refs[i];
        if (unlikely(ref.flags & RL_FLAG_VLAN))
            ref = rl_tagged(memory, ref);
        uint16_t id = tx->spare[--tx->spares];
        tx->buffers[id] = ref.buffer;
        tx->lengths[id] = ref.length;
        tx->ring.descriptors[half + id] = (struct rl_virtq_descriptor){
            .address = memory->bus[ref.buffer] + ref.offset, .length = ref.length};
        rl_virtq_offer(&tx->ring, id);
    }
    if (n > 0)
        publish(tx);
    return n;
}

uint32_t rl_virtio_reclaim(struct rl_port *port, uint32_t queue)
{
    struct rl_virtio *card = port->queues;
    struct rl_virtio_queue *tx = &card->tx[queue];
    uint32_t done = 0;
    for (uint32_t left = pending(port, tx), n; left > 0 && !tx->broken; left -= n, done += n) {
        struct rl_queue_counters *count = rl_counters(port->memory, port->index, queue);
        uint32_t sent[RL_BATCH_MAX], bytes = 0;
        for (n = 0; n < left && n < RL_BATCH_MAX; n++) {
            uint32_t id = rl_virtq_peek(&tx->ring, n).id;
            if (unlikely(!has(tx, id))) {
                fail(port, tx);
                break;
            }
            sent[n] = tx->buffers[id];
            bytes += tx->lengths[id];
            tx->buffers[id] = RL_NO_BUFFER;
            tx->spare[tx->spares++] = (uint16_t)id;
        }
        rl_virtq_done(&tx->ring, n);
        count->tx_bytes += bytes;
        rl_buffers_sent(port->memory, sent, n, count);
    }
    return done;
}
