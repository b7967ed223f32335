/* What the lane does with a worker that breaks the rules. The packets of a correct worker never
 * come here (lane_inline.h has the guarantees). */
#include "../../shm/frames.h"
#include "../ports/memory.h"
#include "lane.h"

void rl_slot_fault(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue)
{
    slot->faulty = 1;
    lane->books->slots[queue].ring_faults++;
}

void rl_refuse(struct rl_lane *lane, struct rl_lane_slot *slot, uint32_t queue,
               const struct rl_reference *ref)
{
    struct rl_memory *memory = &lane->memory;
    struct rl_slot_counters *count = &lane->books->slots[queue];
    struct rl_outcome outcome = RL_OUTCOME(drop_bad_reference, blanks_returned);
    uint32_t cause = RL_REFUSED_NOT_HELD;
    if (ref->buffer < memory->buffers &&
        rl_ledger_is_worker(memory->ledger[ref->buffer], slot->generation, queue)) {
        int to_port = ref->port < lane->port_count;
        cause = to_port ? rl_frame_cause(ref, memory->frame_max) : RL_REFUSED_NO_PORT;
        if (ref->buffer == slot->sampled)
            slot->sampled = RL_NO_BUFFER;
        /* Another port would send it: the worker has broken no rule. */
        int only_here = to_port && rl_frame_fits(ref, memory->room, memory->frame_max);
        if (only_here)
            outcome = RL_OUTCOME(drop_tx_too_long, blanks_lost);
        rl_release(memory, &ref->buffer, 1, outcome, &count->returned);
        if (only_here)
            return;
    }
    count->bad_reference++;
    ((uint64_t *)&count->refusals)[cause]++;
}
