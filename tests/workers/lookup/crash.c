/* Processes that die while they change a map or fill a prefix table; test_crash.py runs it.
 *
 *     crash steps SEED    after each instruction of a change, the shared memory is what a process
 *                         that dies there leaves: check it
 *     crash opens SEED    after each instruction of rl_map_open, which repairs or clears a map
 *     crash kills SEED    kill processes at random moments, and check
 *     crash fill SEED     after each instruction of rl_prefixes_fill, check the table */
#include "lookup/lookup_python.h"

#include "lookup/lookup.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY 6
#define KEYS 9
#define LIFETIME 100

static struct rl_map *map, *copy;
static uint64_t size;
static uint64_t chance;

static uint64_t draw(uint64_t below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return chance % below;
}

static void fail(const char *what, int64_t number)
{
    printf("%s: %lld\n", what, (long long)number);
    exit(1);
}

static void *shared(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap", 0);
    return memory;
}

static void open_map(struct rl_map *one, uint64_t capacity)
{
    rl_map_open(one, capacity, 2, 2, LIFETIME, 12345, offsetof(struct rl_map, spare));
}

/* The value of key `n` for version `version`; 0: absent. Both words belong together. */
static int64_t version_of(const struct rl_map *one, int64_t n)
{
    int64_t key[2] = {n, ~n}, place = rl_map_find(one, key, 0);
    if (place < 0)
        return 0;
    const int64_t *value = rl_map_value(one, (uint64_t)place);
    if (value[0] <= 0 || value[1] != -value[0] - n)
        fail("an entry is found that is not whole, key", n);
    return value[0];
}

static int64_t insert(int64_t n, int64_t version, int64_t now)
{
    int64_t key[2] = {n, ~n}, value[2] = {version, -version - n};
    return rl_map_insert(map, key, value, now);
}

static void change(int what, int64_t n, int64_t version)
{
    int64_t key[2] = {n, ~n};
    if (what == 0)
        insert(n, version, 1000);
    else if (what == 1)
        rl_map_delete(map, key);
    else
        rl_map_expire(map, 1000, 1000);
}

/* The key whose entry is older than the lifetime and is replaced, or -1. */
static int64_t replaced = -1;

/* Each key has its version from before or from after the change, here and after a repair. An old
 * entry that is being replaced may be gone. */
static void check(const int64_t *before, const int64_t *after)
{
    for (int round = 0; round < 2; round++) {
        const struct rl_map *one = round ? copy : map;
        uint64_t entries = 0;
        if (round) {
            memcpy(copy, map, size);
            open_map(copy, CAPACITY);
        }
        for (int64_t n = 0; n < KEYS; n++) {
            int64_t version = version_of(one, n);
            int was_old = n == replaced && version == 0;
            if (version != before[n] && version != after[n] && !was_old)
                fail("an entry is lost or changed, key", n);
            entries += version != 0;
        }
        if (!round)
            continue;
        uint64_t full = 0;
        for (uint64_t place = 0; place < copy->places; place++) {
            full += rl_map_entry(copy, place)[0] != 0;
            if (rl_map_entry(copy, place)[0] == RL_MAP_HOLE)
                fail("a hole is left after the repair, place", (int64_t)place);
        }
        if (full != entries || copy->used != entries)
            fail("an entry is there twice or not counted, entries", (int64_t)entries);
    }
}

/* Run `child` one instruction at a time; `look` after each. Returns the instructions. */
static long step(void (*child)(void), void (*look)(void))
{
    int status;
    long steps = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(3);
        raise(SIGSTOP);
        child();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    while (WIFSTOPPED(status)) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL))
            fail("ptrace", steps);
        waitpid(pid, &status, 0);
        look();
        steps++;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail("the child ended with status", status);
    return steps;
}

static int what;
static int64_t key_of_change, before[KEYS], after[KEYS];

static void one_change(void)
{
    change(what, key_of_change, 77);
}

static void look_at_map(void)
{
    check(before, after);
}

static void steps(void)
{
    long all = 0;
    for (int round = 0; round < 60; round++) {
        memset(map, 0, size);
        open_map(map, CAPACITY);
        for (int n = 0; n < KEYS; n++)
            if (draw(3))
                insert(n, 1 + (int64_t)draw(50), draw(2) ? 1 : 950);
        for (int n = 0; n < KEYS; n++)
            before[n] = version_of(map, n);
        what = round % 3;
        key_of_change = (int64_t)draw(KEYS);
        memcpy(copy, map, size);
        int64_t key[2] = {key_of_change, ~key_of_change};
        replaced = what == 0 && rl_map_find(map, key, 1000) < 0 ? key_of_change : -1;
        one_change();
        for (int n = 0; n < KEYS; n++)
            after[n] = version_of(map, n);
        memcpy(map, copy, size);
        all += step(one_change, look_at_map);
        for (int n = 0; n < KEYS; n++)
            if (version_of(map, n) != after[n])
                fail("the change was not made, key", n);
    }
    printf("%ld instructions\n", all);
}

static void open_again(void)
{
    open_map(map, CAPACITY);
}

/* A map that is not opened yet has no entry, which could never be found again. */
static void look_at_cleared(void)
{
    for (uint64_t place = 0; place < copy->places && !map->ready; place++)
        if (((int64_t *)(map + 1))[place * copy->stride])
            fail("a cleared map has an entry, place", (int64_t)place);
}

static long wanted; /* instructions until the death whose leavings are kept in `copy` */

static void keep_one(void)
{
    if (wanted-- == 0)
        memcpy(copy, map, size);
}

/* Processes that die while they repair a map, and while they clear one that a wild write hit. */
static void opens(void)
{
    long all = 0, repairs = 0, rounds = 0;
    for (; repairs < 30; rounds++) {
        memset(map, 0, size);
        open_map(map, CAPACITY);
        for (int n = 0; n < KEYS; n++)
            if (draw(4))
                insert(n, 1 + (int64_t)draw(50), 950);
        for (int n = 0; n < KEYS; n++)
            before[n] = version_of(map, n);
        what = 1;
        key_of_change = (int64_t)draw(KEYS);
        if (!before[key_of_change])
            continue;
        wanted = 30 + (long)draw(200);
        memcpy(copy, map, size);
        step(one_change, keep_one);
        for (int n = 0; n < KEYS; n++)
            after[n] = version_of(map, n);
        memcpy(map, copy, size);
        if (!map->changing)
            continue;
        all += step(open_again, look_at_map);
        repairs++;
        if (map->changing)
            fail("the map was not repaired, round", rounds);
        map->stride = 5;
        all += step(open_again, look_at_cleared);
        if (!map->ready || map->used)
            fail("the map was not cleared, round", rounds);
    }
    printf("%ld instructions\n", all);
}

/* A key keeps the parity of its version: odd ones are always in the map, even ones come and go. */
static void storm(void)
{
    for (;;) {
        int64_t n = (int64_t)draw(400) * 2;
        if (draw(2))
            insert(n, 1 + (int64_t)draw(1000), 1000);
        else
            change(1, n, 0);
    }
}

static void kills(void)
{
    uint64_t repairs = 0;
    for (int64_t n = 1; n < 800; n += 2)
        insert(n, n, 1000);
    for (int round = 0; round < 200; round++) {
        pid_t pid = fork();
        if (pid == 0)
            storm();
        usleep((useconds_t)draw(3000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        repairs += map->changing;
        open_map(map, 1000);
        uint64_t entries = 0;
        for (int64_t n = 0; n < 800; n++) {
            int64_t version = version_of(map, n);
            if (n % 2 && version != n)
                fail("an entry is lost, key", n);
            entries += version != 0;
        }
        if (entries != map->used)
            fail("the count is wrong, entries", (int64_t)entries);
        draw(2);
    }
    printf("%llu of 200 processes died within a change\n", (unsigned long long)repairs);
}

#define PREFIXES 12
static struct rl_prefixes *table;
static struct rl_prefix prefixes[2 * PREFIXES];
static int64_t values[PREFIXES + 1];

static void fill(int64_t version)
{
    for (int i = 0; i < PREFIXES; i++) {
        uint64_t at = (uint64_t)i << 24;
        prefixes[i] = (struct rl_prefix){0, at, 8, (uint32_t)i + 1};
        prefixes[PREFIXES + i] = (struct rl_prefix){at << 32, 0, 8, (uint32_t)i + 1};
        values[i + 1] = version * 100 + i;
    }
    rl_prefixes_fill(table, PREFIXES, PREFIXES, prefixes, PREFIXES, PREFIXES, values, PREFIXES + 1);
}

static void fill_again(void)
{
    fill(2);
}

static void look_at_table(void)
{
    int64_t version = rl_prefix_find4(table, 1) / 100;
    if (version != 1 && version != 2)
        fail("the table is of no version", version);
    for (int i = 0; i < PREFIXES; i++)
        if (rl_prefix_find4(table, (uint32_t)i << 24 | 5) != version * 100 + i ||
            rl_prefix_find6(table, (uint64_t)i << 56, 5) != version * 100 + i)
            fail("the table is a mixture, prefix", i);
}

static void fills(void)
{
    values[0] = -1;
    table = shared(rl_prefixes_bytes(PREFIXES, PREFIXES));
    for (int round = 0; round < 2; round++) { /* into each of the two banks */
        fill(round);
        fill(1);
        printf("%ld instructions\n", step(fill_again, look_at_table));
        if (rl_prefix_find4(table, 1) != 200)
            fail("the table was not filled", 0);
    }
}

int main(int count, char **arguments)
{
    uint64_t capacity = count > 1 && arguments[1][0] == 'k' ? 1000 : CAPACITY;
    if (count != 3)
        return 2;
    chance = strtoull(arguments[2], NULL, 10) * 2 + 88172645463325253ull;
    size = rl_map_bytes(capacity, 2, 2);
    map = shared(size);
    copy = malloc(size);
    open_map(map, capacity);
    if (arguments[1][0] == 's')
        steps();
    else if (arguments[1][0] == 'o')
        opens();
    else if (arguments[1][0] == 'k')
        kills();
    else
        fills();
    return 0;
}
