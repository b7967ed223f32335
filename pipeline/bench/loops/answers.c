/* The loops of answers.h. */
#include "answers.h"

#include "../../../shm/ring.h"

void rl_answers_add(struct rl_answers *answers, struct rl_rings_segment *rings)
{
    answers->in[answers->queues] = rl_ring_end_new(&rings->in);
    answers->out[answers->queues] = rl_ring_end_new(&rings->out);
    answers->queues++;
    rings->times.unwanted = 1;
}

/* An answer is the reference itself: the input port is the verdict. */
static uint32_t answer(struct rl_ring_end *in, struct rl_ring_end *out)
{
    struct rl_reference batch[RL_BATCH_MAX];
    int room = rl_ring_room(out, RL_BATCH_MAX);
    int got = room > 0 ? rl_ring_pop(in, batch, (uint32_t)room) : 0;
    if (got <= 0)
        return 0;
    rl_ring_put(out, batch, (uint32_t)got);
    return (uint32_t)got;
}

uint32_t rl_answers_step(void *context)
{
    struct rl_answers *answers = context;
    uint32_t moved = 0;
    for (uint32_t queue = 0; queue < answers->queues; queue++) {
        uint32_t n;
        while ((n = answer(&answers->in[queue], &answers->out[queue])) > 0)
            moved += n;
    }
    return moved;
}
