/* Counts the balances and publishes them in the lane's segment. Runs between two passes of the
 * lane, or after its driver has died; never per packet.
 *
 * Guarantees:
 *  A1  packets in flight and the holders of buffers are counted from the ledger, word by word. A
 *      difference of counters would hide a mistake
 *      (tests/shm/test_balance.py: test_a_mistake_in_the_books_is_seen)
 *  A2  a reader can tell a whole balance from one that is being written: `sequence` is then
 *      odd (tests/shm/test_balance.py: test_a_balance_is_published_whole)
 *  A3  every counter named drop_* is part of the packet balance
 *      (tests/shm/test_layout.py: test_the_drop_counters_stand_together)
 */
#ifndef RINGLINE_SHM_BALANCE_H
#define RINGLINE_SHM_BALANCE_H
#include "clock.h"
#include "ledger.h"

#include <string.h>

static inline uint32_t rl_ledger_holder(uint32_t word)
{
    return word >> 28;
}
static inline uint32_t rl_ledger_output(uint32_t word)
{
    return word >> 16 & 0xfff;
}

static inline const uint32_t *rl_ledger_words(const struct rl_lane_segment *books)
{
    return (const uint32_t *)((const uint8_t *)books + books->ledger_offset);
}

/* Units of packet memory in a buffer. A segment that was never filled says 0. */
static inline uint32_t rl_buffer_units(const struct rl_lane_segment *books)
{
    return books->units ? books->units : 1;
}

/* Counts every buffer under its holder and every packet in flight under its input port.
 * `blanks[queue]` grows by the blanks in flight. `seen`, unless NULL, has one byte per unit: it
 * grows for buffers that are unusable or with a worker. */
static inline void rl_balance_count(const struct rl_lane_segment *books, struct rl_balance *balance,
                                    uint64_t *blanks, uint8_t *seen)
{
    const uint32_t *ledger = rl_ledger_words(books);
    for (uint64_t buffer = 0; buffer < books->buffers; buffer += rl_buffer_units(books)) {
        uint32_t word = ledger[buffer];
        uint32_t input = rl_ledger_input(word);
        uint32_t queue = rl_ledger_queue(word) & (RL_QUEUES_MAX - 1);
        switch (rl_ledger_holder(word)) {
        case RL_HOLDER_FREE:
            balance->free++;
            continue;
        case RL_HOLDER_CARD_RX:
            balance->card_rx[input & (RL_PORTS_MAX - 1)]++;
            continue;
        case RL_HOLDER_CARD_TX:
            balance->card_tx[rl_ledger_output(word) & (RL_PORTS_MAX - 1)]++;
            break;
        case RL_HOLDER_WORKER:
            balance->worker[queue]++;
            if (seen)
                seen[buffer]++; /* no other list names these */
            break;
        default:
            balance->unusable++;
            if (seen)
                seen[buffer]++;
            continue;
        }
        if (input == RL_INPUT_BLANK)
            blanks[queue]++;
        else
            balance->in_flight[input & (RL_PORTS_MAX - 1)]++;
    }
}

/* Packets received on `port`, minus those transmitted and dropped. The drop_* counters are
 * consecutive in the struct, so a new one is included without a change here. */
static inline int64_t rl_balance_packets(const struct rl_lane_segment *books, uint32_t port)
{
    const size_t first = offsetof(struct rl_queue_counters, drop_plugin) / sizeof(uint64_t);
    const size_t end = offsetof(struct rl_queue_counters, tx_waits) / sizeof(uint64_t);
    int64_t rest = 0;
    for (uint32_t queue = 0; queue < RL_QUEUES_MAX; queue++) {
        const struct rl_queue_counters *count = &books->queues[port * RL_QUEUES_MAX + queue];
        rest += (int64_t)(count->rx_packets - count->transmitted);
        for (size_t drop = first; drop < end; drop++)
            rest -= (int64_t)((const uint64_t *)count)[drop];
    }
    return rest;
}

/* Counts the books and publishes the balances.
 *
 * `posted[port]`, for RL_PORTS_MAX ports, is the number of buffers on the port's descriptor rings;
 * NULL: there are no rings any more. `free` is the lane's free list of `free_count` buffers;
 * NULL: the driver has died, and only the ledger tells which buffers are free. `seen`, unless
 * NULL, has one byte per buffer: how often the caller found it on descriptor rings. This
 * function adds the other places and publishes how many buffers are missing or doubled.
 *
 * Order of memory accesses: the stores to the balance may move neither before the store of the
 * odd `sequence` (first fence) nor behind the store of the even one (second fence). A reader
 * loads `sequence`, copies the balance and loads `sequence` again; the copy is whole when both
 * are equal and even. */
static inline void rl_balance_publish(struct rl_lane_segment *books, const uint32_t *posted,
                                      const uint32_t *free, uint64_t free_count, uint8_t *seen)
{
    struct rl_balance fresh = {0};
    uint64_t blanks[RL_QUEUES_MAX] = {0};
    uint64_t held = 0;
    rl_balance_count(books, &fresh, blanks, seen);
    for (uint32_t p = 0; p < RL_PORTS_MAX; p++) {
        fresh.packets_residual[p] = rl_balance_packets(books, p) - (int64_t)fresh.in_flight[p];
        fresh.descriptor_residual[p] =
            (int64_t)(posted ? posted[p] : 0) - (int64_t)(fresh.card_rx[p] + fresh.card_tx[p]);
        held += fresh.card_rx[p] + fresh.card_tx[p];
    }
    for (uint32_t q = 0; q < RL_QUEUES_MAX; q++) {
        const struct rl_slot_counters *count = &books->slots[q];
        fresh.worker_residual[q] =
            (int64_t)(count->pushed - count->returned - count->lost - fresh.worker[q]);
        fresh.blanks_residual += (int64_t)(count->blanks_granted - count->blanks_transmitted -
                                           count->blanks_returned - count->blanks_lost - blanks[q]);
        held += fresh.worker[q];
    }
    fresh.buffers_residual = (int64_t)(books->buffers / rl_buffer_units(books) -
                                       (free ? free_count : fresh.free) - held - fresh.unusable);
    if (seen) {
        fresh.complete = 1;
        for (uint64_t i = 0; i < free_count; i++)
            seen[free[i]]++;
        for (uint64_t buffer = 0; buffer < books->buffers; buffer += rl_buffer_units(books)) {
            fresh.scan_missing += seen[buffer] == 0;
            fresh.scan_duplicates += seen[buffer] > 1;
        }
    }
    fresh.when = rl_clock();
    struct rl_balance *shown = &books->balance;
    uint32_t sequence = shown->sequence | 1; /* already odd if a driver died in here */
    __atomic_store_n(&shown->sequence, sequence, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    fresh.sequence = sequence;
    memcpy(shown, &fresh, sizeof fresh);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&shown->sequence, sequence + 1, __ATOMIC_RELEASE);
}
#endif
