/* What Python calls of the inline headers. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_SHM_SHM_H
#define RINGLINE_SHM_SHM_H
#include "types.h"

uint64_t rl_shm_clock(void);
#endif
