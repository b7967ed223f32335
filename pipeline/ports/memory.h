/* Buffers in packet memory: addresses, the free list, and the one place where
 * the completion of a transmitted packet is booked. */
#ifndef RINGLINE_MEMORY_H
#define RINGLINE_MEMORY_H
#include "../../shm/ledger.h"
#include "port.h"

static inline uint8_t *rl_buffer(const struct rl_memory *memory, uint32_t buffer)
{
    return memory->base + (uint64_t)buffer * memory->stride;
}

/* Device address of a byte in a buffer. */
static inline uint64_t rl_buffer_bus(const struct rl_memory *memory, uint32_t buffer,
                                     uint32_t offset)
{
    uint64_t at = memory->first_offset + (uint64_t)buffer * memory->stride + offset;
    uint64_t page = at >> memory->page_shift;
    return memory->page_bus[page] + (at - (page << memory->page_shift));
}

static inline void rl_buffer_free(struct rl_memory *memory, uint32_t buffer)
{
    memory->ledger[buffer] = RL_LEDGER_FREE;
    memory->free[memory->free_count++] = buffer;
}

static inline struct rl_queue_counters *rl_counters(const struct rl_memory *memory, uint32_t port,
                                                    uint32_t queue)
{
    return &memory->books->queues[(port & (RL_PORTS_MAX - 1)) * RL_QUEUES_MAX +
                                  (queue & (RL_QUEUES_MAX - 1))];
}

/* A packet left for good: book it where it came in, then free its buffer. */
static inline void rl_buffer_sent(struct rl_memory *memory, uint32_t buffer)
{
    uint32_t word = memory->ledger[buffer];
    if (rl_ledger_input(word) == RL_INPUT_BLANK)
        memory->books->slots[rl_ledger_queue(word) & (RL_QUEUES_MAX - 1)].blanks_transmitted++;
    else
        rl_counters(memory, rl_ledger_input(word), rl_ledger_queue(word))->transmitted++;
    rl_buffer_free(memory, buffer);
}
#endif
