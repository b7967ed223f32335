#include "loop.h"

#include "../shm/clock.h"

uint64_t rl_worker_clock(void)
{
    return rl_clock();
}
