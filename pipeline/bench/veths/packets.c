/* The same ring as that of a port (packet.c), but no copy, no buffer, no books, no worker: a block
 * goes back to the kernel as soon as its frames were looked at. Without a block it waits with
 * poll(2): a loop that looks at a block again and again takes the cache line from the kernel, which
 * then receives a third fewer frames. */
#include "packets.h"

#include "../../../shm/clock.h"

#include <linux/if_packet.h>
#include <poll.h>

#define WAIT_MS 10

uint64_t rl_bare_packets(struct rl_packet_queue *socket, uint64_t ticks, uint64_t *count)
{
    uint64_t begin = rl_clock(), sum = 0;
    do {
        uint8_t *at = socket->blocks + (uint64_t)socket->block * socket->block_bytes;
        struct tpacket_hdr_v1 *block = &((struct tpacket_block_desc *)at)->hdr.bh1;
        if (!(__atomic_load_n(&block->block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
            struct pollfd wait = {socket->fd, POLLIN, 0};
            poll(&wait, 1, WAIT_MS);
            continue;
        }
        at += block->offset_to_first_pkt;
        for (uint32_t i = 0; i < block->num_pkts; i++) {
            const struct tpacket3_hdr *frame = (const struct tpacket3_hdr *)at;
            sum += at[frame->tp_mac];
            at += frame->tp_next_offset;
        }
        __atomic_store_n(count, *count + block->num_pkts, __ATOMIC_RELAXED);
        __atomic_store_n(&block->block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        socket->block = socket->block + 1 < socket->block_count ? socket->block + 1 : 0;
    } while (rl_clock() - begin < ticks);
    return sum;
}
