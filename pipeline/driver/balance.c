/* What the driver counts between two passes: packets in flight, and the balances. */
#include "../../shm/balance.h"
#include "lane.h"

_Static_assert(RL_LEDGER_FREE == RL_LEDGER_FREE_WORD, "declared twice, for Python and for C");

uint32_t rl_lane_in_flight(const struct rl_lane *lane)
{
    uint32_t count = 0;
    for (uint32_t buffer = 0; buffer < lane->memory.buffers; buffer++) {
        uint32_t word = lane->memory.ledger[buffer];
        uint32_t holder = rl_ledger_holder(word);
        /* A blank that a worker has in hand is no packet yet, and may never be one. */
        count += holder == RL_HOLDER_CARD_TX ||
                 (holder == RL_HOLDER_WORKER && rl_ledger_input(word) != RL_INPUT_BLANK);
    }
    return count;
}

void rl_lane_balance(struct rl_lane *lane, const uint32_t *posted, uint8_t *seen)
{
    const struct rl_memory *memory = &lane->memory;
    rl_balance_publish(lane->books, posted, memory->free, memory->free_count, seen);
}
