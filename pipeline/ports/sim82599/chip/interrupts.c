/* Interrupts: causes, masks, the table that gives each cause its vector, and moderation.
 *
 * A cause that comes while its vector is masked waits. With a moderated vector (EITR), the next
 * message comes no earlier than the interval after the last one. Messages are written to the
 * eventfds that rl_sim_vector sets; vectors without one stay silent. */
#include <unistd.h>
#include "registers.h"

#define OTHER_CAUSES 0x7FFF0000u
#define QUEUE_CAUSES 0xFFFFu
#define UNIT_NS 2000u /* of EITR's interval at 10 Gbit/s */

static uint64_t pair(const struct rl_sim *sim, uint32_t reg)
{
    return sim->registers[reg / 4] | (uint64_t)sim->registers[reg / 4 + 1] << 32;
}

static void set_pair(struct rl_sim *sim, uint32_t reg, uint64_t value)
{
    sim->registers[reg / 4] = (uint32_t)value;
    sim->registers[reg / 4 + 1] = (uint32_t)(value >> 32);
}

/* The vector in an entry of IVAR or IVAR_MISC; -1: the entry is not valid. */
static int vector_of(const struct rl_sim *sim, uint32_t entry)
{
    if (!(entry & IVAR_ENTRY_VALID))
        return -1;
    return sim->registers[GPIE / 4] & GPIE_MULTIPLE ? (int)(entry & 0x3F) : 0;
}

static void want_other(struct rl_sim *sim)
{
    int vector = vector_of(sim, sim->registers[IVAR_MISC / 4] >> 8);
    if (vector >= 0 && (sim->registers[EICR / 4] & sim->registers[EIMS / 4] & OTHER_CAUSES))
        sim->interrupts.other |= 1ull << vector;
}

/* Queues by their vectors: each bit has a cause. */
static void want(struct rl_sim *sim, uint64_t vectors)
{
    set_pair(sim, EICS_EX, pair(sim, EICS_EX) | vectors);
    sim->registers[EICR / 4] |= (uint32_t)vectors & QUEUE_CAUSES;
    sim->interrupts.wanted |= vectors;
}

void rl_sim_cause(struct rl_sim *sim, uint32_t queue, bool transmit)
{
    uint32_t entry = sim->registers[IVAR / 4 + queue / 2] >> (queue % 2 * 16 + transmit * 8);
    if (entry & IVAR_ENTRY_VALID)
        want(sim, 1ull << (entry & 0x3F));
}

void rl_sim_cause_other(struct rl_sim *sim, uint32_t causes)
{
    sim->registers[EICR / 4] |= causes;
    want_other(sim);
}

bool rl_sim_has_vector(const struct rl_sim *sim, uint32_t queue, bool transmit)
{
    uint32_t entry = sim->registers[IVAR / 4 + queue / 2] >> (queue % 2 * 16 + transmit * 8);
    return entry & IVAR_ENTRY_VALID;
}

static void unmask(struct rl_sim *sim, uint64_t vectors, uint32_t causes)
{
    set_pair(sim, EIMS_EX, pair(sim, EIMS_EX) | vectors);
    sim->registers[EIMS / 4] |= causes;
    sim->interrupts.wanted |= vectors & pair(sim, EICS_EX);
    want_other(sim);
}

static void mask(struct rl_sim *sim, uint64_t vectors, uint32_t causes)
{
    set_pair(sim, EIMS_EX, pair(sim, EIMS_EX) & ~vectors);
    sim->registers[EIMS / 4] &= ~causes;
}

static void clear(struct rl_sim *sim, uint64_t vectors, uint32_t causes)
{
    set_pair(sim, EICS_EX, pair(sim, EICS_EX) & ~vectors);
    sim->registers[EICR / 4] &= ~causes;
    sim->interrupts.wanted &= ~vectors;
}

uint32_t rl_sim_read_causes(struct rl_sim *sim)
{
    uint32_t causes = sim->registers[EICR / 4];
    clear(sim, causes & QUEUE_CAUSES, causes);
    return causes;
}

/* The first 16 vectors are in EICR and its companions, and in the first of the registers for all
 * 64 as well. */
bool rl_sim_write_interrupt(struct rl_sim *sim, uint32_t reg, uint32_t value)
{
    uint64_t low = value & QUEUE_CAUSES;
    uint64_t high = (uint64_t)value << 32;
    switch (reg) {
    case EICR:
        clear(sim, low, value);
        return true;
    case EICS:
        want(sim, low);
        rl_sim_cause_other(sim, value & OTHER_CAUSES);
        return true;
    case EIMS:
        unmask(sim, low, value);
        return true;
    case EIMC:
        mask(sim, low, value);
        return true;
    case EICS_EX:
        want(sim, value);
        return true;
    case EICS_EX + 4:
        want(sim, high);
        return true;
    case EIMS_EX:
        unmask(sim, value, (uint32_t)low);
        return true;
    case EIMS_EX + 4:
        unmask(sim, high, 0);
        return true;
    case EIMC_EX:
        mask(sim, value, (uint32_t)low);
        return true;
    case EIMC_EX + 4:
        mask(sim, high, 0);
        return true;
    default:
        return false;
    }
}

static uint64_t interval_ns(const struct rl_sim *sim, uint32_t vector)
{
    uint32_t reg = vector < 24 ? EITR + 4 * vector : EITR_HIGH + 4 * (vector - 24);
    return (uint64_t)(sim->registers[reg / 4] >> 3 & 0x1FF) * UNIT_NS;
}

static void message(struct rl_sim *sim, uint32_t vector)
{
    const uint64_t one = 1;
    int32_t fd = sim->interrupts.fds[vector];
    sim->interrupts.messages++;
    if (fd >= 0 && write(fd, &one, sizeof one) != sizeof one)
        sim->interrupts.fds[vector] = -1; /* nobody listens any more */
}

/* Sent: the card masks and clears what EIAM and EIAC name. */
static void after_message(struct rl_sim *sim, uint64_t bit)
{
    uint32_t low = (uint32_t)bit & QUEUE_CAUSES;
    if (low == 0 || (sim->registers[EIAC / 4] & low))
        clear(sim, bit, low);
    if (sim->registers[GPIE / 4] & GPIE_EIAME) {
        uint64_t masked = bit & pair(sim, EIAM_EX);
        mask(sim, masked, (uint32_t)masked & QUEUE_CAUSES);
    }
    sim->interrupts.wanted &= ~bit;
}

void rl_sim_fire(struct rl_sim *sim)
{
    struct rl_sim_interrupts *interrupts = &sim->interrupts;
    uint64_t ready = interrupts->wanted & pair(sim, EIMS_EX);
    uint64_t now = rl_sim_now();
    interrupts->due = 0;
    for (uint64_t left = ready; left; left &= left - 1) {
        uint32_t number = (uint32_t)__builtin_ctzll(left);
        uint64_t due = interrupts->sent_at[number] + interval_ns(sim, number);
        if (now < due) {
            if (interrupts->due == 0 || due < interrupts->due)
                interrupts->due = due;
            continue;
        }
        interrupts->sent_at[number] = now;
        message(sim, sim->registers[GPIE / 4] & GPIE_MULTIPLE ? number : 0);
        after_message(sim, 1ull << number);
    }
    for (; interrupts->other; interrupts->other &= interrupts->other - 1)
        message(sim, (uint32_t)__builtin_ctzll(interrupts->other));
}

void rl_sim_vector(struct rl_sim *sim, uint32_t vector, int32_t fd)
{
    sim->interrupts.fds[vector % RL_SIM_VECTORS] = fd;
}

uint64_t rl_sim_due(const struct rl_sim *sim)
{
    uint64_t now = rl_sim_now();
    if (sim->waiting || sim->live.used != 0)
        return 100000;
    if (sim->interrupts.due == 0)
        return UINT64_MAX;
    return sim->interrupts.due > now ? sim->interrupts.due - now : 0;
}
