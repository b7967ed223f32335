/* A ring under stress, for test_ring_stress.py.
 *
 *   ring_stress threads COUNT START      one producer thread, one consumer thread
 *   ring_stress processes COUNT FD       one process at each end of the two rings in FD:
 *                                        the worker returns each reference of `in` on `out`
 *   ring_stress sleeper COUNT FD         the same, one reference at a time; the worker
 *                                        sleeps in between
 *
 * START is the first ring index: a high one makes the indices wrap. Every field of a
 * reference follows from its number, and each is checked. Exits 0, or prints the
 * error and exits 1. */
#define _GNU_SOURCE
#include "shm/times.h"
#ifndef RL_NO_SLEEP /* ThreadSanitizer does not support fences */
#include "shm/wait.h"
#endif

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t count;
static struct rl_times *times; /* of threads only: the time of each reference is its number */

static struct rl_reference numbered(uint64_t number)
{
    uint32_t mixed = (uint32_t)number * 2654435761u;
    return (struct rl_reference){.buffer = (uint32_t)number,
                                 .offset = (uint16_t)(mixed >> 3),
                                 .length = (uint16_t)(mixed >> 7),
                                 .rss_hash = ~mixed,
                                 .vlan_tci = (uint16_t)(mixed >> 11),
                                 .port = (uint8_t)(mixed >> 13),
                                 .flags = (uint8_t)(mixed >> 17)};
}

static void check(const struct rl_reference *got, uint64_t number)
{
    struct rl_reference wanted = numbered(number);
    if (memcmp(got, &wanted, sizeof wanted) != 0) {
        printf("expected reference %llu, got number %u\n", (unsigned long long)number, got->buffer);
        exit(1);
    }
}

/* Batch sizes from 1 to 64; the seed selects the sequence. */
static uint32_t batch_size(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return 1 + (*seed >> 26);
}

static void must(int result)
{
    if (result < 0) {
        printf("a ring index is out of range, although both ends are correct\n");
        exit(1);
    }
}

/* Push the part of one batch that fits, from number `sent`; returns the next number. */
static uint64_t produce(struct rl_ring_end *end, uint64_t sent, uint32_t *seed)
{
    struct rl_reference refs[RL_BATCH_MAX];
    uint32_t n = batch_size(seed);
    if (n > count - sent)
        n = (uint32_t)(count - sent);
    int64_t stamps[RL_BATCH_MAX];
    for (uint32_t i = 0; i < n; i++) {
        refs[i] = numbered(sent + i);
        stamps[i] = (int64_t)(sent + i);
    }
    int room = rl_ring_room(end, n);
    must(room);
    if (times)
        rl_times_put(times, end, (uint32_t)room, stamps, 0);
    rl_ring_put(end, refs, (uint32_t)room);
    return sent + (uint64_t)room;
}

/* Take a batch: odd sizes by pop, even sizes by peek and a take of half of it. */
static uint64_t consume(struct rl_ring_end *end, uint64_t seen, uint32_t *seed)
{
    struct rl_reference refs[RL_BATCH_MAX];
    uint32_t n = batch_size(seed);
    int got;
    if (n & 1) {
        got = rl_ring_pop(end, refs, n);
        must(got);
    } else {
        got = rl_ring_peek(end, refs, n);
        must(got);
        got = (got + 1) / 2;
        int64_t stamps[RL_BATCH_MAX];
        if (times)
            rl_times_get(times, end, stamps, (uint32_t)got);
        rl_ring_take(end, (uint32_t)got);
        for (int i = 0; times && i < got; i++)
            if (stamps[i] != (int64_t)(seen + (uint64_t)i)) {
                printf("reference %llu has the time of %lld\n",
                       (unsigned long long)(seen + (uint64_t)i), (long long)stamps[i]);
                exit(1);
            }
    }
    for (int i = 0; i < got; i++)
        check(refs + i, seen + (uint64_t)i);
    return seen + (uint64_t)got;
}

static void *producer(void *argument)
{
    uint32_t seed = 1;
    for (uint64_t sent = 0; sent < count;) {
        uint64_t next = produce(argument, sent, &seed);
        if (next == sent)
            sched_yield();
        sent = next;
    }
    return NULL;
}

static void threads(uint32_t start)
{
    struct rl_ring *ring = aligned_alloc(64, sizeof *ring);
    memset(ring, 0, sizeof *ring);
    times = calloc(1, sizeof *times);
    ring->producer = ring->consumer = start;
    struct rl_ring_end in = {ring, start, start}, out = {ring, start, start};
    pthread_t thread;
    uint32_t seed = 2;
    pthread_create(&thread, NULL, producer, &in);
    for (uint64_t seen = 0; seen < count;) {
        uint64_t next = consume(&out, seen, &seed);
        if (next == seen)
            sched_yield();
        seen = next;
    }
    pthread_join(thread, NULL);
    free(times);
    free(ring);
}

#ifndef RL_NO_SLEEP
static struct rl_rings_segment *map(int fd)
{
    struct rl_rings_segment *rings =
        mmap(NULL, sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (rings == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return rings;
}

/* Wait some nanoseconds per turn. */
static void pause_for(uint64_t turns)
{
    for (volatile uint64_t i = turns; i > 0; i--)
        ;
}

/* The worker: returns every reference until it is killed. */
static void echo(struct rl_rings_segment *rings, int sleeping)
{
    uint64_t naps = 0;
    struct rl_ring_end in = rl_ring_end_new(&rings->in), out = rl_ring_end_new(&rings->out);
    struct rl_reference refs[RL_BATCH_MAX];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int room = rl_ring_room(&out, RL_BATCH_MAX);
        must(room);
        int got = rl_ring_pop(&in, refs, (uint32_t)room);
        must(got);
        if (got > 0) {
            rl_ring_put(&out, refs, (uint32_t)got);
        } else if (sleeping) {
            pause_for(naps++ * 13 % 512);
            rl_ring_sleep(&in, 999999999);
        } else {
            sched_yield();
        }
    }
}

static void processes(int fd)
{
    struct rl_rings_segment *rings = map(fd);
    pid_t worker = fork();
    if (worker == 0)
        echo(rings, 0);
    struct rl_ring_end in = rl_ring_end_new(&rings->in), out = rl_ring_end_new(&rings->out);
    uint32_t seed_in = 3, seed_out = 4;
    for (uint64_t sent = 0, seen = 0; seen < count;) {
        uint64_t next_sent = produce(&in, sent, &seed_in);
        uint64_t next_seen = consume(&out, seen, &seed_out);
        if (next_sent == sent && next_seen == seen)
            sched_yield();
        sent = next_sent;
        seen = next_seen;
    }
    kill(worker, SIGKILL);
    waitpid(worker, NULL, 0);
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A wake-up is lost when the worker has not answered 500 ms after the push and its
 * sleeping flag is still set. (A worker that was woken and waits for a processor has
 * cleared its flag.) Pauses of different lengths on both sides, up to about half a
 * microsecond, make the push meet each step of falling asleep. */
static void sleeper(int fd)
{
    struct rl_rings_segment *rings = map(fd);
    pid_t worker = fork();
    if (worker == 0)
        echo(rings, 1);
    struct rl_ring_end in = rl_ring_end_new(&rings->in), out = rl_ring_end_new(&rings->out);
    uint64_t lost = 0, woken = 0;
    for (uint64_t number = 0; number < count && lost == 0; number++) {
        struct rl_reference ref = numbered(number);
        pause_for(number * 7 % 512);
        must(rl_ring_push(&in, &ref, 1));
        if (rl_ring_is_asleep(in.ring)) {
            rl_ring_wake(in.ring);
            woken++;
        }
        uint64_t start = nanoseconds();
        for (;;) {
            uint64_t waited = nanoseconds() - start;
            uint64_t asleep = waited > 500000000 && rl_ring_is_asleep(in.ring);
            if (rl_ring_pop(&out, &ref, 1) == 1)
                break;
            lost |= asleep;
            if (waited > 100000)
                sched_yield();
        }
        check(&ref, number);
    }
    kill(worker, SIGKILL);
    waitpid(worker, NULL, 0);
    printf("lost %llu woken %llu\n", (unsigned long long)lost, (unsigned long long)woken);
    if (lost)
        exit(1);
}
#endif

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    count = strtoull(argv[2], NULL, 0);
    uint32_t third = (uint32_t)strtoul(argv[3], NULL, 0);
    if (strcmp(argv[1], "threads") == 0)
        threads(third);
#ifndef RL_NO_SLEEP
    else if (strcmp(argv[1], "processes") == 0)
        processes((int)third);
    else if (strcmp(argv[1], "sleeper") == 0)
        sleeper((int)third);
#endif
    else
        return 2;
    return 0;
}
