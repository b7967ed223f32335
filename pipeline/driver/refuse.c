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
    uint32_t cause = RL_REFUSED_NOT_HELD;
    if (ref->buffer < memory->buffers &&
        rl_ledger_is_worker(memory->ledger[ref->buffer], slot->generation, queue)) {
        cause = ref->port < lane->port_count ? rl_frame_cause(ref) : RL_REFUSED_NO_PORT;
        if (ref->buffer == slot->sampled)
            slot->sampled = RL_NO_BUFFER;
        rl_release(memory, &ref->buffer, 1, RL_OUTCOME(drop_bad_reference, blanks_returned),
                   &count->returned);
    }
    count->bad_reference++;
    ((uint64_t *)&count->refusals)[cause]++;
}
