/* AF_PACKET: the two rings of a packet socket (packet(7), kernel header linux/if_packet.h) as a
 * port's queue. The kernel maps the rings; all else is private memory of the driver. Plain
 * declarations: C and cffi read this. */
#ifndef RINGLINE_PACKET_H
#define RINGLINE_PACKET_H
#include "../port.h"

/* Bytes of a slot of the TX ring: a header, then a frame with a VLAN tag. */
#define RL_PACKET_SLOT 2048
#define RL_PACKET_SLOT_FRAME 48 /* bytes from the slot to its frame */

/* One socket, bound to the interface. The RX ring consists of blocks, which the kernel fills with
 * frames and hands over whole; the TX ring consists of slots with a frame each. */
struct rl_packet_queue {
    uint8_t *blocks;
    uint32_t block_bytes;
    uint32_t block_count;
    uint32_t block; /* the next to read, or the one that is being read */
    uint32_t left;  /* frames of it that are still to be read; 0: it is not open */
    uint8_t *next;  /* the next frame to read, if `left` is not 0 */
    int64_t last;   /* the time of the frame before, nanoseconds since 1970 */
    uint64_t oversize;
    uint64_t runt;
    /* The slots from `done` to `own` have a packet that is not counted as sent yet. Those from
     * `taken` on may be new to the kernel. These three run freely. */
    uint8_t *slots;
    uint32_t slot_mask; /* slots - 1; their number is a power of two */
    uint32_t own;
    uint32_t taken;
    uint32_t done;
    uint32_t *buffers; /* of each slot */
    int fd;
};

struct rl_packet {
    struct rl_port port;
    int64_t stamps[64]; /* of the last burst */
    int64_t behind;     /* nanoseconds by which the clock of the machine was set back */
    uint32_t frame_max; /* bytes of the longest frame without a tag that the interface sends */
    struct rl_packet_queue queues[16];
};

/* See struct rl_port. */
uint32_t rl_packet_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_packet_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_packet_reclaim(struct rl_port *port, uint32_t queue);

/* The frames on the RX ring that were not read. `*open` is how many of them are in the block that
 * the kernel still fills. */
uint32_t rl_packet_unread(const struct rl_packet_queue *socket, uint32_t *open);

/* The interface never sends the frame in the slot `done`, where the kernel stands: its MTU became
 * smaller a moment ago. The frame is dropped, and those behind it move up by one slot. */
void rl_packet_drop_wrong(struct rl_packet *packet, struct rl_packet_queue *socket);

/* Return every buffer of the TX rings to the free list. Packets that the kernel has not reported
 * as sent are counted as dropped because the output is down. */
void rl_packet_return_all(struct rl_packet *packet);

/* The number of buffers on the TX rings, counted slot by slot. Adds one to seen[buffer] for each,
 * unless `seen` is NULL. */
uint32_t rl_packet_scan(const struct rl_packet *packet, uint8_t *seen);
#endif
