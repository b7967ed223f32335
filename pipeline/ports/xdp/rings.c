/* The rings outside the packet path: post buffers when a port starts, take them back when it
 * stops, count them for the books; and the system calls that Python lacks. */
#define _GNU_SOURCE
#include "../memory.h"
#include "chunks.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(struct rl_xdp_descriptor) == sizeof(struct xdp_desc) &&
                   offsetof(struct rl_xdp_descriptor, length) == offsetof(struct xdp_desc, len),
               "a descriptor as the kernel declares it");
_Static_assert(RL_XDP_HEADROOM == XDP_PACKET_HEADROOM, "the headroom of the kernel");
_Static_assert(RL_XDP_HEADROOM - RL_XDP_LEAD == RL_BUFFER_HEADROOM &&
                   RL_XDP_CHUNK == RL_XDP_HEADROOM + RL_BUFFER_DATA,
               "a card writes into the data of a buffer, and into all of it");
_Static_assert(RL_XDP_FIRST == RL_HEADER_BYTES - RL_XDP_LEAD, "the chunk of buffer 0");

int rl_xdp_post(struct rl_xdp *xdp, uint32_t count)
{
    struct rl_memory *memory = xdp->port.memory;
    if (memory->free_count < xdp->port.queue_pairs * count)
        return 0;
    for (uint32_t q = 0; q < xdp->port.queue_pairs; q++) {
        struct rl_xdp_ring *fill = &xdp->queues[q].fill;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t buffer = memory->free[--memory->free_count];
            ((uint64_t *)fill->entries)[fill->own++ & fill->mask] = rl_xdp_chunk(buffer);
            xdp->held[buffer] = RL_XDP_RECEIVING | q << 16;
            memory->ledger[buffer] = rl_ledger_card_rx(xdp->port.index);
        }
        __atomic_store_n(fill->producer, fill->own, __ATOMIC_RELEASE);
        /* A driver that lacks buffers waits for this call. */
        recvfrom(xdp->queues[q].fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    }
    return 1;
}

void rl_xdp_return_all(struct rl_xdp *xdp)
{
    struct rl_memory *memory = xdp->port.memory;
    for (uint32_t q = 0; q < xdp->port.queue_pairs; q++)
        rl_xdp_reclaim(&xdp->port, q);
    for (uint32_t buffer = 0; buffer < memory->buffers; buffer++) {
        uint32_t use = xdp->held[buffer] & 0xff000000;
        xdp->held[buffer] = 0;
        if (use == RL_XDP_RECEIVING)
            rl_buffer_free(memory, buffer);
        else if (use == RL_XDP_SENDING)
            rl_release(memory, &buffer, 1, RL_OUTCOME(drop_tx_down, blanks_lost), NULL);
    }
    for (uint32_t q = 0; q < xdp->port.queue_pairs; q++)
        xdp->queues[q].sending = 0;
}

void rl_xdp_scan(const struct rl_xdp *xdp, uint32_t *receiving, uint32_t *sending, uint8_t *seen)
{
    *receiving = *sending = 0;
    for (uint32_t buffer = 0; buffer < xdp->port.memory->buffers; buffer++) {
        uint32_t use = xdp->held[buffer] & 0xff000000;
        *receiving += use == RL_XDP_RECEIVING;
        *sending += use == RL_XDP_SENDING;
        if (use && seen)
            seen[buffer]++;
    }
}

int rl_xdp_bpf(int command, void *attributes, uint32_t bytes)
{
    long result = syscall(SYS_bpf, command, attributes, bytes);
    return result < 0 ? -errno : (int)result;
}

int rl_xdp_bind(int fd, uint32_t interface, uint32_t queue, uint32_t flags, int shared_with)
{
    struct sockaddr_xdp address = {.sxdp_family = AF_XDP,
                                   .sxdp_flags = (uint16_t)flags,
                                   .sxdp_ifindex = interface,
                                   .sxdp_queue_id = queue,
                                   .sxdp_shared_umem_fd = (uint32_t)shared_with};
    return bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
}

int rl_xdp_wake_tx(int fd)
{
    return sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? -errno : 0;
}
