/* The inline functions of ledger.h, and those of balance.h that read a word, as a shared object for
 * test_ledger.py. */
#include "shm/balance.h"

uint32_t card_rx(uint32_t port)
{
    return rl_ledger_card_rx(port);
}
uint32_t worker(uint32_t generation, uint32_t queue, uint32_t input)
{
    return rl_ledger_worker(generation, queue, input);
}
uint32_t card_tx(uint32_t word, uint32_t output)
{
    return rl_ledger_card_tx(word, output);
}
int is_worker(uint32_t word, uint32_t generation, uint32_t queue)
{
    return rl_ledger_is_worker(word, generation, queue);
}
uint32_t holder(uint32_t word)
{
    return rl_ledger_holder(word);
}
uint32_t output(uint32_t word)
{
    return rl_ledger_output(word);
}
uint32_t queue(uint32_t word)
{
    return rl_ledger_queue(word);
}
uint32_t input(uint32_t word)
{
    return rl_ledger_input(word);
}
