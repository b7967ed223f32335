/* The ledger: one 32-bit word per buffer that says who holds it.
 *
 * Guarantees (tests in tests/shm/test_ledger.py):
 *  L1  a word names exactly one holder, so no buffer has two holders
 *      (test_every_buffer_has_one_holder)
 *  L2  a worker's reference is accepted only if the word names this worker in this
 *      generation; a second return of the same buffer is refused
 *      (test_second_return_is_refused, test_other_generation_is_refused)
 *  L3  the word keeps the input port and the queue from receive to completion, so a packet's
 *      end is counted where the packet was received (test_input_port_survives)
 *
 * Assumptions:
 *  B1  only the lane writes the words; after the driver has died, only settle_driver
 *      (ledger.py) does. So plain loads and stores are enough
 *  B2  12 bits of generation are enough: a generation is settled to the last buffer before
 *      the next one starts
 *
 * Word: holder 31:28, generation or output port 27:16, queue 15:8, input port 7:0.
 */
#ifndef RINGLINE_SHM_LEDGER_H
#define RINGLINE_SHM_LEDGER_H
#include "types.h"

#define RL_LEDGER_FREE (RL_HOLDER_FREE << 28)

static inline uint32_t rl_ledger_card_rx(uint32_t port)
{
    return RL_HOLDER_CARD_RX << 28 | port;
}

static inline uint32_t rl_ledger_worker(uint32_t generation, uint32_t queue, uint32_t input)
{
    return RL_HOLDER_WORKER << 28 | (generation & 0xfff) << 16 | queue << 8 | input;
}

/* The word of the same packet when it is on the TX descriptor ring of `output`. */
static inline uint32_t rl_ledger_card_tx(uint32_t word, uint32_t output)
{
    return RL_HOLDER_CARD_TX << 28 | output << 16 | (word & 0xffff);
}

/* Whether `word` says that this worker holds the buffer in this generation. */
static inline int rl_ledger_is_worker(uint32_t word, uint32_t generation, uint32_t queue)
{
    return (word & ~0xffu) == rl_ledger_worker(generation, queue, 0);
}

static inline uint32_t rl_ledger_queue(uint32_t word)
{
    return word >> 8 & 0xff;
}
static inline uint32_t rl_ledger_input(uint32_t word)
{
    return word & 0xff;
}
#endif
