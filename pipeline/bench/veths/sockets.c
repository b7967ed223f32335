/* The same system calls and the same size of bursts as the port (xdp.c), but no ledger, no books,
 * no checks, no worker: a descriptor is copied from one ring to the other. */
#include "sockets.h"

#include "../../../shm/clock.h"

#include <sys/socket.h>

#define NEED_WAKEUP 1u /* XDP_RING_NEED_WAKEUP of linux/if_xdp.h */
#define WAKES_MAX 3    /* in copy mode the kernel sends at most 32 packets per system call */
#define BASE(address) ((address) & ((UINT64_C(1) << 48) - 1)) /* of a buffer */

static inline uint32_t filled(const struct rl_xdp_ring *ring)
{
    return __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE) - ring->own;
}

static inline int needs_wakeup(const struct rl_xdp_ring *ring)
{
    return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) & NEED_WAKEUP;
}

void rl_bare_sockets_post(struct rl_xdp_queue *from, uint32_t count)
{
    struct rl_xdp_ring *fill = &from->fill;
    for (uint64_t buffer = 0; buffer < count; buffer++)
        ((uint64_t *)fill->entries)[fill->own++ & fill->mask] = buffer * RL_BUFFER_STRIDE;
    __atomic_store_n(fill->producer, fill->own, __ATOMIC_RELEASE);
}

static uint32_t send_burst(struct rl_xdp_queue *from, struct rl_xdp_queue *to)
{
    struct rl_xdp_ring *rx = &from->rx, *tx = &to->tx;
    const struct rl_xdp_descriptor *received = rx->entries;
    struct rl_xdp_descriptor *sent = tx->entries;
    uint32_t n = filled(rx), room = tx->mask + 1 - to->sending;
    n = n < room ? n : room;
    n = n < RL_BATCH_MAX ? n : RL_BATCH_MAX;
    if (n == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        sent[tx->own & tx->mask] = received[rx->own++ & rx->mask];
        sent[tx->own++ & tx->mask].options = 0;
    }
    to->sending += n;
    __atomic_store_n(tx->producer, tx->own, __ATOMIC_RELEASE);
    __atomic_store_n(rx->consumer, rx->own, __ATOMIC_RELEASE);
    return n;
}

static void give_back(struct rl_xdp_queue *from, struct rl_xdp_queue *to)
{
    struct rl_xdp_ring *completion = &to->completion, *fill = &from->fill;
    const uint64_t *done = completion->entries;
    uint32_t n = filled(completion);
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++)
        ((uint64_t *)fill->entries)[fill->own++ & fill->mask] =
            BASE(done[completion->own++ & completion->mask]);
    to->sending -= n;
    __atomic_store_n(completion->consumer, completion->own, __ATOMIC_RELEASE);
    __atomic_store_n(fill->producer, fill->own, __ATOMIC_RELEASE);
}

uint64_t rl_bare_sockets(struct rl_xdp_queue *from, struct rl_xdp_queue *to, uint64_t ticks)
{
    uint64_t begin = rl_clock(), sent = 0;
    do {
        sent += send_burst(from, to);
        for (int i = 0; i < WAKES_MAX && needs_wakeup(&to->tx); i++) {
            if (__atomic_load_n(to->tx.consumer, __ATOMIC_ACQUIRE) == to->tx.own)
                break;
            sendto(to->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
        }
        give_back(from, to);
        if (needs_wakeup(&from->fill))
            recvfrom(from->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    } while (rl_clock() - begin < ticks);
    return sent;
}
