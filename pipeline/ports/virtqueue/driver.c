/* The driver's end outside the packet path: the layout of a queue, and single chains. */
#include "driver.h"

#include <stddef.h>

/* 2.7: the available ring needs 2 bytes of alignment and the used ring 4. Here each begins on a
 * cache line, since one end writes to the first and the other end to the second. */
static uint32_t available_at(uint32_t size)
{
    return size * (uint32_t)sizeof(struct rl_virtq_descriptor);
}

static uint32_t used_at(uint32_t size)
{
    uint32_t bytes = (uint32_t)sizeof(struct rl_virtq_available) + 2 * (size + 1);
    return (available_at(size) + bytes + 63) & ~UINT32_C(63);
}

uint32_t rl_virtq_bytes(uint32_t size)
{
    return used_at(size) + (uint32_t)sizeof(struct rl_virtq_used) +
           size * (uint32_t)sizeof(struct rl_virtq_element) + 2;
}

void rl_virtq_place(struct rl_virtq *queue, void *memory, uint32_t size, int events)
{
    uint8_t *begin = memory;
    *queue = (struct rl_virtq){
        .descriptors = (struct rl_virtq_descriptor *)begin,
        .available = (struct rl_virtq_available *)(begin + available_at(size)),
        .used = (struct rl_virtq_used *)(begin + used_at(size)),
        .mask = size - 1,
        .events = events != 0,
    };
    queue->available->flags = events ? 0 : RL_VIRTQ_NO_INTERRUPT; /* 2.7.7: 0 with events */
    rl_virtq_done(queue, 0);
}

int rl_virtq_give(struct rl_virtq *queue, uint16_t head)
{
    rl_virtq_offer(queue, head);
    return rl_virtq_publish(queue);
}

int rl_virtq_get(struct rl_virtq *queue, struct rl_virtq_element *element)
{
    if (rl_virtq_pending(queue) == 0)
        return 0;
    *element = rl_virtq_peek(queue, 0);
    rl_virtq_done(queue, 1);
    return 1;
}
