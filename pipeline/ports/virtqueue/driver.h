/* The driver's end of a split virtqueue: what runs per packet, and per burst. Section numbers are
 * those of Virtio 1.2. Its numbers are little-endian, as those of this processor. */
#ifndef RINGLINE_VIRTQUEUE_DRIVER_H
#define RINGLINE_VIRTQUEUE_DRIVER_H
#include "virtqueue.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a virtqueue is little-endian");

/* 2.7.13.2: put a chain of descriptors into the ring. The device does not see it yet. */
static inline void rl_virtq_offer(struct rl_virtq *queue, uint16_t head)
{
    queue->available->ring[queue->written++ & queue->mask] = head;
}

/* 2.7.13.3: let the device see what was put into the ring: all stores to descriptors and ring come
 * before the index. 2.7.13.4: the index comes before the look at what the device wants, hence the
 * full fence. Returns whether it wants a notification (2.7.10). */
static inline int rl_virtq_publish(struct rl_virtq *queue)
{
    uint16_t before = queue->published;
    uint16_t now = queue->published = queue->written;
    __atomic_store_n(&queue->available->index, now, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!queue->events)
        return !(__atomic_load_n(&queue->used->flags, __ATOMIC_RELAXED) & RL_VIRTQ_NO_NOTIFY);
    uint16_t *event = (uint16_t *)&queue->used->ring[queue->mask + 1];
    uint16_t wanted = __atomic_load_n(event, __ATOMIC_RELAXED);
    return (uint16_t)(now - wanted - 1) < (uint16_t)(now - before);
}

/* 2.7.14: how many used elements are still to be read. The elements are read after this. More than
 * the queue has descriptors: the device is broken. */
static inline uint32_t rl_virtq_pending(const struct rl_virtq *queue)
{
    return (uint16_t)(__atomic_load_n(&queue->used->index, __ATOMIC_ACQUIRE) - queue->read);
}

/* The element `ahead` of the first that is still to be read. The device may change it at any time,
 * so each number is read once. */
static inline struct rl_virtq_element rl_virtq_peek(const struct rl_virtq *queue, uint32_t ahead)
{
    const struct rl_virtq_element *element =
        &queue->used->ring[(queue->read + ahead) & queue->mask];
    return (struct rl_virtq_element){.id = __atomic_load_n(&element->id, __ATOMIC_RELAXED),
                                     .length = __atomic_load_n(&element->length, __ATOMIC_RELAXED)};
}

/* Elements were read. 2.7.7: used_event stays so far away that no interrupt comes. */
static inline void rl_virtq_done(struct rl_virtq *queue, uint32_t elements)
{
    queue->read = (uint16_t)(queue->read + elements);
    if (queue->events)
        queue->available->ring[queue->mask + 1] = (uint16_t)(queue->read + 0x8000);
}
#endif
