/* Registers of a card that the kernel takes away. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_ABSENT_H
#define RINGLINE_ABSENT_H
#include <stdint.h>

#define RL_ABSENT_MAX 64 /* mappings of registers in one process */

/* From now on, or no longer, an access to this mapping that the kernel answers with SIGBUS gets all
 * ones, as from a card that does not answer. `address` is that of a page, `size` is in bytes. The
 * first returns 0, or -1 when RL_ABSENT_MAX mappings are known. For one thread. */
int rl_absent_expect(uint64_t address, uint64_t size);
void rl_absent_forget(uint64_t address);

#endif
