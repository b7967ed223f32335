/* The inline functions of cache.h, for test_cache.py. */
#include "shm/types.h"
#ifdef OTHER_PROCESSOR
#undef __x86_64__
#endif
#include "shm/cache.h"

void demote(const struct rl_ring_end *end, uint32_t n)
{
    rl_ring_demote(end, n);
}
void fetch(const struct rl_ring_end *end, uint32_t n)
{
    rl_ring_fetch(end, n);
}
