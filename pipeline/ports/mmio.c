#include "mmio.h"

uint32_t rl_mmio_read(const volatile uint32_t *address)
{
    return *address;
}

/* Whatever was stored to memory before is visible to the card before this is. */
void rl_mmio_write(volatile uint32_t *address, uint32_t value)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *address = value;
}
