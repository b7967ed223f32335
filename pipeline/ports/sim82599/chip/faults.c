/* Faults: requests that the card would refuse, kept as sentences. The same fault
 * several times in a row is one entry with a count, because a stopped queue repeats
 * it at every step. */
#include <stdarg.h>
#include <stdio.h>
#include "model.h"

void rl_sim_fault(struct rl_sim *sim, uint32_t kind, uint32_t queue, uint64_t address,
                  const char *format, ...)
{
    struct rl_sim_card *card = sim->card;
    struct rl_sim_fault *fault = &card->faults[(card->fault_next - 1) % RL_SIM_FAULTS];
    card->fault_count++;
    card->fault_kinds[kind]++;
    if (card->fault_next != 0 && fault->kind == kind && fault->queue == queue &&
        fault->address == address) {
        fault->times++;
        return;
    }
    fault = &card->faults[card->fault_next++ % RL_SIM_FAULTS];
    fault->kind = kind;
    fault->queue = queue;
    fault->address = address;
    fault->times = 1;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
}

const char *rl_sim_fault_name(uint32_t kind)
{
    static const char *const names[RL_SIM_FAULT_KINDS] = {
        "dma",           "register", "reset",   "initialising",  "master",
        "interrupt",     "queue",    "tail",    "receive",       "receive_hang",
        "rx_descriptor", "transmit", "arbiter", "tx_descriptor", "unmodelled",
    };
    return kind < RL_SIM_FAULT_KINDS ? names[kind] : "";
}
