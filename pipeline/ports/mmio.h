/* Access to registers that Python has mapped: one aligned 32-bit load or store
 * each, which Python's own memory views do not promise. C and cffi read this. */
#ifndef RINGLINE_MMIO_H
#define RINGLINE_MMIO_H
#include <stdint.h>

uint32_t rl_mmio_read(const volatile uint32_t *address);
void rl_mmio_write(volatile uint32_t *address, uint32_t value);
#endif
