/* What Python calls of the inline headers, and three system calls that Python
 * lacks. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_SHM_SHM_H
#define RINGLINE_SHM_SHM_H
#include "types.h"

/* One end of a ring (ring.h, wait.h); `end` is private memory of the caller. */
void rl_end_open(struct rl_ring_end *end, struct rl_ring *ring);
int rl_end_room(struct rl_ring_end *end, uint32_t want);
int rl_end_push(struct rl_ring_end *end, const struct rl_reference *from, uint32_t n);
int rl_end_peek(struct rl_ring_end *end, struct rl_reference *to, uint32_t n);
void rl_end_take(struct rl_ring_end *end, uint32_t n);
int rl_end_pop(struct rl_ring_end *end, struct rl_reference *to, uint32_t n);
int rl_end_is_asleep(struct rl_ring_end *end);
void rl_end_wake(struct rl_ring_end *end);
void rl_end_sleep(struct rl_ring_end *end, uint32_t nanoseconds); /* below 10^9 */

/* Count the books of a driver that has died and publish the balances (balance.h). */
void rl_balance_without_driver(struct rl_lane_segment *books);

/* The clock of all time stamps in shared memory, and its rate. The rate is
 * measured once per process, which takes some 2 ms. */
uint64_t rl_now(void);
double rl_ticks_per_second(void);

/* Have the kernel send `signal` to this process when its parent ends. Returns 0,
 * an errno, or -1 when the process with the id `parent` is the parent no more.
 * The parent is the thread that started this process: it must live as long. */
int rl_die_with_parent(int signal, int parent);

/* One load, one store of 32 bits: registers of a mapped device. */
uint32_t rl_read32(uint64_t address);
void rl_write32(uint64_t address, uint32_t value);

/* One aligned store that is seen after all that was stored before it. */
void rl_publish32(uint64_t address, uint32_t value);
void rl_publish64(uint64_t address, uint64_t value);

/* FNV-1a, 64 bits: for telling layouts apart, not for secrets. */
uint64_t rl_hash(const uint8_t *bytes, uint64_t n);
#endif
