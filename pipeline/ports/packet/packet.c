/* Bursts of a packet socket: the code that runs per packet.
 *
 * packet(7) and the kernel's Documentation/networking/packet_mmap.rst describe the rings, here in
 * version TPACKET_V3. A block or a slot belongs to the kernel or to us; its status word says to
 * whom, is written with release and read with acquire.
 *
 * Receiving: the frames of a block are copied into packet memory, and the block goes back to the
 * kernel. So the port holds no buffers for receiving; what finds no room in a block is counted by
 * the kernel.
 *
 * Sending: the packet is copied into a slot, and its buffer is freed when the kernel gives the slot
 * back. A system call makes the kernel take the slots in order. It needs no answer: what the kernel
 * has no room for (EAGAIN, ENOBUFS), or cannot send since the interface is down (ENETDOWN), stays
 * in its slot, and the next call tries again. A slot with a frame that the interface never sends is
 * marked as wrong, and the kernel does not go past it. */
#include "packet.h"

#include "../interfaces/complete.h"
#include "../memory.h"

#include <linux/if_packet.h>
#include <sys/socket.h>

#define MAC_BYTES 12
#define TAG_BYTES 4
#define ETHERNET_BYTES 14
#define VLAN_TPID 0x8100
#define WITH_KERNEL (TP_STATUS_SEND_REQUEST | TP_STATUS_SENDING)

#define unlikely(condition) __builtin_expect(!!(condition), 0)

static inline uint32_t status_of(const uint32_t *word, uint32_t bits)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) & bits;
}

static inline void give(uint32_t *word, uint32_t status)
{
    __atomic_store_n(word, status, __ATOMIC_RELEASE);
}

static inline struct tpacket_hdr_v1 *block_at(const struct rl_packet_queue *socket, uint32_t block)
{
    uint8_t *begin = socket->blocks + (uint64_t)block * socket->block_bytes;
    return &((struct tpacket_block_desc *)begin)->hdr.bh1;
}

static inline struct tpacket3_hdr *slot_at(const struct rl_packet_queue *socket, uint32_t index)
{
    uint64_t slot = index & socket->slot_mask;
    return (struct tpacket3_hdr *)(socket->slots + slot * RL_PACKET_SLOT);
}

/* Go on with the next frame if there is one. Returns 0 when the kernel still fills its block. */
static inline int more(struct rl_packet_queue *socket)
{
    while (socket->left == 0) {
        struct tpacket_hdr_v1 *block = block_at(socket, socket->block);
        if (!status_of(&block->block_status, TP_STATUS_USER))
            return 0;
        socket->left = block->num_pkts;
        socket->next = (uint8_t *)block - offsetof(struct tpacket_block_desc, hdr) +
                       block->offset_to_first_pkt;
        if (unlikely(socket->left == 0)) {
            give(&block->block_status, TP_STATUS_KERNEL);
            socket->block = socket->block + 1 < socket->block_count ? socket->block + 1 : 0;
        }
    }
    return 1;
}

static inline void went_past(struct rl_packet_queue *socket, const struct tpacket3_hdr *head)
{
    socket->next += head->tp_next_offset;
    if (--socket->left > 0)
        return;
    struct tpacket_hdr_v1 *block = block_at(socket, socket->block);
    block->num_pkts = 0; /* for rl_packet_unread, until the kernel opens the block */
    give(&block->block_status, TP_STATUS_KERNEL);
    socket->block = socket->block + 1 < socket->block_count ? socket->block + 1 : 0;
}

/* Copy a frame to `to` and put its VLAN tag back, which the kernel keeps beside it. Returns its
 * length; 0 when it is too long or too short, which is counted. */
static inline uint32_t copy(struct rl_packet_queue *socket, const struct tpacket3_hdr *head,
                            uint8_t *to)
{
    const uint8_t *frame = (const uint8_t *)head + head->tp_mac;
    uint32_t length = head->tp_snaplen;
    int tagged = (head->tp_status & TP_STATUS_VLAN_VALID) != 0;
    if (unlikely(length < ETHERNET_BYTES)) {
        socket->runt++;
        return 0;
    }
    if (unlikely(head->tp_len > length || length > RL_FRAME_MAX - (tagged ? TAG_BYTES : 0))) {
        socket->oversize++;
        return 0;
    }
    if (tagged) {
        uint32_t type =
            head->tp_status & TP_STATUS_VLAN_TPID_VALID ? head->hv1.tp_vlan_tpid : VLAN_TPID;
        uint32_t tag = head->hv1.tp_vlan_tci;
        memcpy(to, frame, MAC_BYTES);
        to[MAC_BYTES] = (uint8_t)(type >> 8);
        to[MAC_BYTES + 1] = (uint8_t)type;
        to[MAC_BYTES + 2] = (uint8_t)(tag >> 8);
        to[MAC_BYTES + 3] = (uint8_t)tag;
        memcpy(to + MAC_BYTES + TAG_BYTES, frame + MAC_BYTES, length - MAC_BYTES);
        length += TAG_BYTES;
    } else {
        memcpy(to, frame, length);
    }
    if (unlikely(head->tp_status & TP_STATUS_CSUMNOTREADY))
        rl_complete(to, length);
    return length;
}

/* When the kernel saw a frame. Times never run back, also when the clock of the machine does. */
static inline int64_t time_of(struct rl_packet *packet, struct rl_packet_queue *socket,
                              const struct tpacket3_hdr *head)
{
    int64_t now = (int64_t)head->tp_sec * 1000000000 + head->tp_nsec + packet->behind;
    socket->last = now > socket->last ? now : socket->last;
    return socket->last;
}

/* A frame is taken only when there is a free buffer for it. */
uint32_t rl_packet_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n)
{
    if (unlikely(queue >= port->queue_pairs))
        return 0;
    struct rl_packet *packet = port->queues;
    struct rl_packet_queue *socket = &packet->queues[queue];
    struct rl_memory *memory = port->memory;
    uint32_t most = n < memory->free_count ? n : memory->free_count;
    uint32_t taken = 0;
    while (taken < most && more(socket)) {
        const struct tpacket3_hdr *head = (const struct tpacket3_hdr *)socket->next;
        uint32_t buffer = memory->free[memory->free_count - 1];
        __builtin_prefetch(socket->next + head->tp_next_offset);
        uint32_t length = copy(socket, head, rl_buffer(memory, buffer) + memory->headroom);
        if (length) {
            memory->free_count--;
            packet->stamps[taken] = time_of(packet, socket, head);
            refs[taken++] = (struct rl_reference){.buffer = buffer,
                                                  .offset = (uint16_t)memory->headroom,
                                                  .length = (uint16_t)length,
                                                  .port = (uint8_t)port->index};
        }
        went_past(socket, head);
    }
    if (unlikely(most < n && more(socket)))
        rl_counters(memory, port->index, queue)->rx_starved++;
    return taken;
}

static inline void make_kernel_send(const struct rl_packet_queue *socket)
{
    sendto(socket->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
}

/* Copy a packet into a slot, with the VLAN tag that its reference has. */
static inline void fill(struct tpacket3_hdr *slot, const struct rl_memory *memory,
                        const struct rl_reference *ref)
{
    const uint8_t *frame = rl_buffer(memory, ref->buffer) + ref->offset;
    uint8_t *to = (uint8_t *)slot + RL_PACKET_SLOT_FRAME;
    slot->tp_next_offset = 0;
    slot->tp_len = ref->length;
    if (unlikely(ref->flags & RL_FLAG_VLAN)) {
        memcpy(to, frame, MAC_BYTES);
        to[MAC_BYTES] = VLAN_TPID >> 8;
        to[MAC_BYTES + 1] = VLAN_TPID & 0xff;
        to[MAC_BYTES + 2] = (uint8_t)(ref->vlan_tci >> 8);
        to[MAC_BYTES + 3] = (uint8_t)ref->vlan_tci;
        memcpy(to + MAC_BYTES + TAG_BYTES, frame + MAC_BYTES, ref->length - MAC_BYTES);
        slot->tp_len += TAG_BYTES;
    } else {
        memcpy(to, frame, ref->length);
    }
}

/* Whether the interface sends a frame of this length: a tag (IEEE 802.1Q) does not count. */
static inline int fits(const struct rl_packet *packet, const struct tpacket3_hdr *slot)
{
    const uint8_t *frame = (const uint8_t *)slot + RL_PACKET_SLOT_FRAME;
    int tagged = frame[MAC_BYTES] == VLAN_TPID >> 8 && frame[MAC_BYTES + 1] == (VLAN_TPID & 0xff);
    return slot->tp_len <= packet->frame_max + (tagged ? TAG_BYTES : 0);
}

uint32_t rl_packet_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n)
{
    struct rl_packet *packet = port->queues;
    queue = queue < port->queue_pairs ? queue : queue % port->queue_pairs;
    struct rl_packet_queue *socket = &packet->queues[queue];
    uint32_t room = socket->slot_mask + 1 - (socket->own - socket->done);
    uint32_t before = socket->own;
    n = n < room ? n : room;
    for (uint32_t i = 0; i < n; i++) {
        struct tpacket3_hdr *slot = slot_at(socket, socket->own);
        fill(slot, port->memory, &refs[i]);
        if (unlikely(!fits(packet, slot))) {
            rl_release(port->memory, &refs[i].buffer, 1, RL_OUTCOME(drop_tx_too_long, blanks_lost),
                       NULL);
            continue;
        }
        socket->buffers[socket->own++ & socket->slot_mask] = refs[i].buffer;
        give(&slot->tp_status, TP_STATUS_SEND_REQUEST);
    }
    if (socket->own != before)
        make_kernel_send(socket);
    return n;
}

uint32_t rl_packet_reclaim(struct rl_port *port, uint32_t queue)
{
    struct rl_packet *packet = port->queues;
    queue = queue < port->queue_pairs ? queue : queue % port->queue_pairs;
    struct rl_packet_queue *socket = &packet->queues[queue];
    uint32_t done = 0;
    while (socket->done != socket->own) {
        struct rl_queue_counters *count = rl_counters(port->memory, port->index, queue);
        uint32_t sent[RL_BATCH_MAX];
        uint32_t n = 0, status = 0;
        uint64_t bytes = 0;
        while (n < RL_BATCH_MAX && socket->done != socket->own) {
            const struct tpacket3_hdr *slot = slot_at(socket, socket->done);
            status = status_of(&slot->tp_status, WITH_KERNEL | TP_STATUS_WRONG_FORMAT);
            if (status)
                break;
            bytes += slot->tp_len;
            sent[n++] = socket->buffers[socket->done++ & socket->slot_mask];
        }
        count->tx_bytes += bytes;
        rl_buffers_sent(port->memory, sent, n, count);
        done += n;
        if (unlikely(status & TP_STATUS_WRONG_FORMAT))
            rl_packet_drop_wrong(packet, socket);
        else if (n < RL_BATCH_MAX)
            break;
    }
    if ((int32_t)(socket->taken - socket->done) < 0)
        socket->taken = socket->done;
    while (socket->taken != socket->own &&
           !status_of(&slot_at(socket, socket->taken)->tp_status, TP_STATUS_SEND_REQUEST))
        socket->taken++;
    if (unlikely(socket->taken != socket->own))
        make_kernel_send(socket);
    return done;
}
