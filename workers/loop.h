/* The worker loop. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_WORKERS_LOOP_H
#define RINGLINE_WORKERS_LOOP_H
#include "../shm/types.h"

uint64_t rl_worker_clock(void);
#endif
