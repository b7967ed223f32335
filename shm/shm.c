/* The functions of shm.h: wrappers of the inline headers, and system calls. */
#define _GNU_SOURCE
#include "shm.h"

#include "balance.h"
#include "clock.h"
#include "frames.h"
#include "wait.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void rl_end_open(struct rl_ring_end *end, struct rl_ring *ring)
{
    *end = rl_ring_end_new(ring);
}

int rl_end_room(struct rl_ring_end *end, uint32_t want)
{
    return rl_ring_room(end, want);
}

int rl_end_push(struct rl_ring_end *end, const struct rl_reference *from, uint32_t n)
{
    return rl_ring_push(end, from, n);
}

int rl_end_peek(struct rl_ring_end *end, struct rl_reference *to, uint32_t n)
{
    return rl_ring_peek(end, to, n);
}

void rl_end_take(struct rl_ring_end *end, uint32_t n)
{
    rl_ring_take(end, n);
}

int rl_end_pop(struct rl_ring_end *end, struct rl_reference *to, uint32_t n)
{
    return rl_ring_pop(end, to, n);
}

int rl_end_is_asleep(struct rl_ring_end *end)
{
    return rl_ring_is_asleep(end->ring);
}

void rl_end_wake(struct rl_ring_end *end)
{
    rl_ring_wake(end->ring);
}

void rl_end_sleep(struct rl_ring_end *end, uint32_t nanoseconds)
{
    rl_ring_sleep(end, nanoseconds);
}

int rl_why_refused(const struct rl_reference *ref, uint32_t room, uint32_t longest)
{
    return rl_frame_fits(ref, room, longest) ? -1 : (int)rl_frame_cause(ref, longest);
}

void rl_balance_without_driver(struct rl_lane_segment *books)
{
    rl_balance_publish(books, NULL, NULL, 0, NULL);
}

uint64_t rl_now(void)
{
    return rl_clock();
}

struct instant {
    uint64_t ticks;
    uint64_t nanoseconds;
};

/* Both clocks at one moment. The shortest of 16 tries is the one that was interrupted least. */
static struct instant read_both_clocks(void)
{
    struct instant best = {0, 0};
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        struct timespec now;
        uint64_t before = rl_clock();
        clock_gettime(CLOCK_MONOTONIC_RAW, &now);
        uint64_t width = rl_clock() - before;
        if (width < narrowest) {
            narrowest = width;
            best.ticks = before + width / 2;
            best.nanoseconds = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        }
    }
    return best;
}

double rl_ticks_per_second(void)
{
    /* Two threads may measure at the same time; both results are good. */
    static double rate;
    if (rate == 0) {
        struct timespec pause = {0, 2000000};
        struct instant first = read_both_clocks();
        nanosleep(&pause, NULL);
        struct instant last = read_both_clocks();
        rate = (double)(last.ticks - first.ticks) * 1e9 /
               (double)(last.nanoseconds - first.nanoseconds);
    }
    return rate;
}

int rl_die_with_parent(int signal, int parent)
{
    if (prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0)
        return errno;
    return getppid() == parent ? 0 : -1;
}

void rl_sleep_exactly(void)
{
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* ns */
}

int rl_adopt_orphans(int on)
{
    return prctl(PR_SET_CHILD_SUBREAPER, (unsigned long)on, 0, 0, 0) == 0 ? 0 : errno;
}

int rl_drop_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}};
    return syscall(SYS_capset, &header, none) == 0 ? 0 : errno;
}

uint32_t rl_read32(uint64_t address)
{
    return *(volatile uint32_t *)(uintptr_t)address;
}

void rl_write32(uint64_t address, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)address = value;
}

uint32_t rl_read_narrow(uint64_t address, uint32_t bytes)
{
    if (bytes == 1)
        return *(volatile uint8_t *)(uintptr_t)address;
    return bytes == 2 ? *(volatile uint16_t *)(uintptr_t)address : rl_read32(address);
}

void rl_write_narrow(uint64_t address, uint32_t bytes, uint32_t value)
{
    if (bytes == 1)
        *(volatile uint8_t *)(uintptr_t)address = (uint8_t)value;
    else if (bytes == 2)
        *(volatile uint16_t *)(uintptr_t)address = (uint16_t)value;
    else
        rl_write32(address, value);
}

void rl_publish32(uint64_t address, uint32_t value)
{
    __atomic_store_n((uint32_t *)(uintptr_t)address, value, __ATOMIC_RELEASE);
}

void rl_publish64(uint64_t address, uint64_t value)
{
    __atomic_store_n((uint64_t *)(uintptr_t)address, value, __ATOMIC_RELEASE);
}

uint64_t rl_hash(const uint8_t *bytes, uint64_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint64_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
