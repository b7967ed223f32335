/* Statistics as the card keeps them, in registers: packets in 32 bits that
 * wrap, octets in two registers. */
#include "model.h"

void rl_sim_add(struct rl_sim *sim, uint32_t reg, uint64_t number)
{
    sim->registers[reg / 4] += (uint32_t)number;
}

void rl_sim_add_octets(struct rl_sim *sim, uint32_t reg, uint64_t octets)
{
    uint64_t sum = sim->registers[reg / 4] + (octets & 0xFFFFFFFF);
    sim->registers[reg / 4] = (uint32_t)sum;
    sim->registers[reg / 4 + 1] += (uint32_t)(sum >> 32) + (uint32_t)(octets >> 32);
}
