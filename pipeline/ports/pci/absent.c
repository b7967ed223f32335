/* When a card is removed, a kernel may take the mapping of its registers away at once; VFIO does so
 * while the memory of a card is switched off. The next access, perhaps to a doorbell in the middle
 * of a burst, is a SIGBUS, which would end the driver with all its ports. So a handler puts memory
 * of ones in place of the mapping, and the access is repeated. The port then finds that its card is
 * gone. */
#define _GNU_SOURCE
#include "absent.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

static struct {
    uint64_t begin, size;
} expected[RL_ABSENT_MAX];

/* Everything here may be used in a handler; mmap is a plain system call. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    uint64_t at = (uint64_t)(uintptr_t)info->si_addr;
    for (int i = 0; i < RL_ABSENT_MAX; i++) {
        if (at - expected[i].begin >= expected[i].size)
            continue;
        void *place = (void *)(uintptr_t)expected[i].begin;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        if (mmap(place, expected[i].size, PROT_READ | PROT_WRITE, flags, -1, 0) == place) {
            memset(place, 0xff, expected[i].size);
            return;
        }
    }
    signal(number, SIG_DFL); /* an error of another kind: the access is repeated, and ends us */
}

int rl_absent_expect(uint64_t address, uint64_t size)
{
    for (int i = 0; i < RL_ABSENT_MAX; i++) {
        if (expected[i].size != 0)
            continue;
        expected[i].begin = address;
        expected[i].size = size;
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
        sigaction(SIGBUS, &action, NULL);
        return 0;
    }
    return -1;
}

void rl_absent_forget(uint64_t address)
{
    for (int i = 0; i < RL_ABSENT_MAX; i++)
        if (expected[i].size != 0 && expected[i].begin == address)
            expected[i].size = 0;
}
