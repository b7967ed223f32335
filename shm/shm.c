#include "shm.h"

#include "clock.h"

uint64_t rl_shm_clock(void)
{
    return rl_clock();
}
