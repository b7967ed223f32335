/* Register access from another process: one request at a time in shared memory.
 * The driver writes the request, then its number; the model writes the result, then
 * the same number. A request whose driver died is answered too, and the next driver
 * continues from its number. */
#include <sched.h>
#include <time.h>
#include "chip/model.h"

#define SPINS 2000
#define IDLE_SPINS 64
#define SERVE_STEPS 64
#define NAP_NS 50000
#define NAP_LONGEST_NS 500000 /* reached after about 2 s without work */

static void nap(uint64_t nanoseconds)
{
    const struct timespec pause = {0, (long)nanoseconds};
    nanosleep(&pause, NULL);
}

uint32_t rl_sim_serve(struct rl_sim *sim)
{
    struct rl_sim_mailbox *mailbox = &sim->card->mailbox;
    uint32_t request = __atomic_load_n(&mailbox->request, __ATOMIC_ACQUIRE);
    if (request == mailbox->response)
        return 0;
    uint32_t reg = mailbox->reg;
    switch (mailbox->operation) {
    case RL_SIM_READ:
        mailbox->result = rl_sim_read(sim, reg);
        break;
    case RL_SIM_WRITE:
        rl_sim_write(sim, reg, mailbox->value);
        break;
    case RL_SIM_BUS_MASTER:
        rl_sim_bus_master(sim, mailbox->value);
        break;
    default:
        break;
    }
    __atomic_store_n(&mailbox->response, request, __ATOMIC_RELEASE);
    return 1;
}

int32_t rl_sim_request(struct rl_sim_card *card, uint32_t operation, uint32_t reg, uint32_t value,
                       uint32_t *result, uint64_t nanoseconds)
{
    struct rl_sim_mailbox *mailbox = &card->mailbox;
    uint32_t request = mailbox->request + 1;
    uint64_t until = rl_sim_now() + nanoseconds;
    mailbox->operation = operation;
    mailbox->reg = reg;
    mailbox->value = value;
    __atomic_store_n(&mailbox->request, request, __ATOMIC_RELEASE);
    for (uint32_t spins = 0; __atomic_load_n(&mailbox->response, __ATOMIC_ACQUIRE) != request;
         spins++) {
        if (spins < SPINS)
            continue;
        if (rl_sim_now() > until)
            return -1;
        if (spins < 2 * SPINS)
            sched_yield();
        else
            nap(NAP_NS);
    }
    *result = mailbox->result;
    return 0;
}

/* The process of a model shares its core with others: it yields after some idle
 * passes, and then sleeps for increasing times. */
uint64_t rl_sim_run(struct rl_sim *sim, uint64_t nanoseconds)
{
    uint64_t until = rl_sim_now() + nanoseconds;
    uint64_t moved = 0;
    do {
        uint32_t work = rl_sim_serve(sim);
        for (uint32_t i = 0; i < SERVE_STEPS; i++) {
            uint32_t frames = rl_sim_step(sim);
            work += frames;
            if (frames == 0)
                break;
        }
        moved += work;
        sim->idle_passes = work ? 0 : sim->idle_passes + 1;
        if (sim->idle_passes > 4 * IDLE_SPINS) {
            uint64_t longer = NAP_NS + (uint64_t)sim->idle_passes * 64;
            nap(longer < NAP_LONGEST_NS ? longer : NAP_LONGEST_NS);
        } else if (sim->idle_passes > IDLE_SPINS) {
            sched_yield();
        }
    } while (rl_sim_now() < until);
    return moved;
}
