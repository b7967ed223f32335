/* The rings outside the packet path: what is on them when a port stops, and for the books. */
#include "../memory.h"
#include "packet.h"

#include <linux/if_packet.h>
#include <string.h>

_Static_assert(RL_PACKET_SLOT >= TPACKET3_HDRLEN + RL_FRAME_MAX + 4, "a slot has room for a frame");
_Static_assert(RL_PACKET_SLOT_FRAME == TPACKET3_HDRLEN - sizeof(struct sockaddr_ll),
               "where tpacket_parse_header of net/packet/af_packet.c looks for the frame");

static struct tpacket3_hdr *slot_at(const struct rl_packet_queue *socket, uint32_t index)
{
    uint64_t slot = index & socket->slot_mask;
    return (struct tpacket3_hdr *)(socket->slots + slot * RL_PACKET_SLOT);
}

uint32_t rl_packet_unread(const struct rl_packet_queue *socket, uint32_t *open)
{
    uint32_t frames = socket->left;
    uint32_t block = socket->block;
    *open = 0;
    for (uint32_t i = 0; i < socket->block_count; i++) {
        const uint8_t *begin = socket->blocks + (uint64_t)block * socket->block_bytes;
        const struct tpacket_hdr_v1 *head = &((const struct tpacket_block_desc *)begin)->hdr.bh1;
        uint32_t status = __atomic_load_n(&head->block_status, __ATOMIC_ACQUIRE);
        uint32_t count = __atomic_load_n(&head->num_pkts, __ATOMIC_RELAXED);
        if (!(status & TP_STATUS_USER)) {
            *open = count;
            return frames + count;
        }
        if (i > 0 || socket->left == 0)
            frames += count;
        block = block + 1 < socket->block_count ? block + 1 : 0;
    }
    return frames;
}

void rl_packet_drop_wrong(struct rl_packet *packet, struct rl_packet_queue *socket)
{
    uint32_t buffer = socket->buffers[socket->done & socket->slot_mask];
    struct tpacket3_hdr *slot = slot_at(socket, socket->done);
    for (socket->own--, socket->taken = socket->done; socket->taken != socket->own;) {
        struct tpacket3_hdr *next = slot_at(socket, socket->taken + 1);
        memcpy((uint8_t *)slot + RL_PACKET_SLOT_FRAME, (uint8_t *)next + RL_PACKET_SLOT_FRAME,
               next->tp_len);
        slot->tp_len = next->tp_len;
        __atomic_store_n(&slot->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
        socket->buffers[socket->taken & socket->slot_mask] =
            socket->buffers[(socket->taken + 1) & socket->slot_mask];
        slot = next;
        socket->taken++;
    }
    __atomic_store_n(&slot->tp_status, TP_STATUS_AVAILABLE, __ATOMIC_RELEASE);
    socket->taken = socket->done;
    rl_release(packet->port.memory, &buffer, 1, RL_OUTCOME(drop_tx_too_long, blanks_lost), NULL);
}

void rl_packet_return_all(struct rl_packet *packet)
{
    for (uint32_t q = 0; q < packet->port.queue_pairs; q++) {
        struct rl_packet_queue *socket = &packet->queues[q];
        rl_packet_reclaim(&packet->port, q);
        for (; socket->done != socket->own; socket->done++)
            rl_release(packet->port.memory, &socket->buffers[socket->done & socket->slot_mask], 1,
                       RL_OUTCOME(drop_tx_down, blanks_lost), NULL);
        socket->taken = socket->own;
    }
}

uint32_t rl_packet_scan(const struct rl_packet *packet, uint8_t *seen)
{
    uint32_t sending = 0;
    for (uint32_t q = 0; q < packet->port.queue_pairs; q++) {
        const struct rl_packet_queue *socket = &packet->queues[q];
        for (uint32_t at = socket->done; at != socket->own; at++) {
            sending++;
            if (seen)
                seen[socket->buffers[at & socket->slot_mask]]++;
        }
    }
    return sending;
}
