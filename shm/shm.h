/* C functions that Python calls: those of the inline headers, and operations that Python does
 * not have. Plain declarations: C and cffi read this file. */
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

/* RL_REFUSED_* when no card can send the frame of `ref`, -1 when it can (frames.h). */
int rl_why_refused(const struct rl_reference *ref, uint32_t room, uint32_t longest);

/* Count the books of a dead driver and publish the balances (balance.h). */
void rl_balance_without_driver(struct rl_lane_segment *books);

/* The clock of all time stamps in shared memory (clock.h), and its rate. The first call of a
 * process measures the rate, which takes about 2 ms. */
uint64_t rl_now(void);
double rl_ticks_per_second(void);

/* The kernel sends `signal` to this process when its parent ends. Returns 0, an errno, or -1
 * when the process `parent` is no longer the parent. The kernel takes the thread that started
 * this process for the parent: it must not end before the process does. */
int rl_die_with_parent(int signal, int parent);

/* From now on a sleep of this thread ends when it should; by default the kernel adds up to 50 us,
 * so that a sleep of 30 us takes 100 us (PR_SET_TIMERSLACK of prctl(2)). */
void rl_sleep_exactly(void);

/* From now on, or no longer, this process becomes the parent of every descendant whose own parent
 * ends. Returns 0 or an errno. */
int rl_adopt_orphans(int on);

/* This thread, and what it starts, has no capability any more (capabilities(7)), except that a
 * program that root starts has all of them again. Returns 0 or an errno. */
int rl_drop_capabilities(void);

/* Exactly one 32-bit load, exactly one 32-bit store: for registers of a mapped device. */
uint32_t rl_read32(uint64_t address);
void rl_write32(uint64_t address, uint32_t value);

/* The same for registers of `bytes` bytes: 1, 2 or 4. */
uint32_t rl_read_narrow(uint64_t address, uint32_t bytes);
void rl_write_narrow(uint64_t address, uint32_t bytes, uint32_t value);

/* One aligned release store: no earlier load or store of this thread may move behind it. */
void rl_publish32(uint64_t address, uint32_t value);
void rl_publish64(uint64_t address, uint64_t value);

/* FNV-1a, 64 bits: tells layouts apart; it is no protection against forgery. */
uint64_t rl_hash(const uint8_t *bytes, uint64_t n);
#endif
