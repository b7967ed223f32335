/* card SYSFS ADDRESS INSTANCE FRAMES SECONDS [swap]
 *
 * Make a network card in the folder SYSFS, and receive FRAMES numbered frames with
 * it. Print one JSON line of counts when the driver has sent all of them back, at a
 * fault, or after SECONDS. Then stay a card without traffic until standard input
 * ends, so that the driver can stop in order. Exit code 0: every frame came back
 * undamaged.
 *
 * card toeplitz KEY DATA prints the hash of DATA, both in hexadecimal.
 */
#include "card.h"
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECOND 1000000000ull

static void die(const char *what)
{
    fprintf(stderr, "card: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int file_in(const char *folder, const char *name, const void *content, size_t bytes)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, content, bytes) != (ssize_t)bytes)
        die(path);
    return fd;
}

static void text_in(const char *folder, const char *name, const char *text)
{
    close(file_in(folder, name, text, strlen(text)));
}

static void *mapped(int fd, size_t bytes)
{
    if (ftruncate(fd, (off_t)bytes) != 0)
        die("ftruncate");
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    close(fd);
    return memory;
}

/* Make the folder of the device, as the kernel would. */
static void appear(struct card *card, const char *sysfs, const char *address)
{
    static const uint8_t configuration[64] = {
        0x86, 0x80, 0xfb, 0x10, 0, 0, 0x10, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0x0c, 0, 0, 0x92,
    };
    static const char *parts[] = {"bus", "pci", "devices"};
    char folder[768], resource[1024];
    size_t used = (size_t)snprintf(folder, sizeof folder, "%s", sysfs);
    for (size_t i = 0; i <= 3; i++) {
        const char *part = i < 3 ? parts[i] : address;
        used += (size_t)snprintf(folder + used, sizeof folder - used, "/%s", part);
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            die(folder);
    }
    text_in(folder, "device", "0x10fb\n");
    text_in(folder, "class", "0x020000\n");
    text_in(folder, "numa_node", "-1\n");
    size_t at = (size_t)snprintf(resource, sizeof resource, "0x%016x 0x%016x 0x%016x\n",
                                 0x92000000u, 0x92000000u + BAR_BYTES - 1, 0x0014220cu);
    for (int i = 1; i < 13; i++)
        at += (size_t)snprintf(resource + at, sizeof resource - at, "0x%016x 0x%016x 0x%016x\n", 0,
                               0, 0);
    text_in(folder, "resource", resource);
    card->config = mapped(file_in(folder, "config", configuration, sizeof configuration), 256);
    card->bar = mapped(file_in(folder, "resource0", "", 0), BAR_BYTES);
    card_start(card);
    /* Last: the tests wait for this file. */
    text_in(folder, "vendor", "0x8086\n");
}

static void report(const struct card *card, const struct traffic *traffic, uint64_t begun)
{
    printf("{\"complete\": %s, \"sent\": %llu, \"returned\": %llu, \"duplicates\": %llu, "
           "\"damaged\": %llu, \"out_of_order\": %llu, \"resets\": %llu, \"seconds\": %.3f",
           traffic->returned == traffic->frames ? "true" : "false",
           (unsigned long long)traffic->sent, (unsigned long long)traffic->returned,
           (unsigned long long)traffic->duplicates, (unsigned long long)traffic->damaged,
           (unsigned long long)traffic->out_of_order, (unsigned long long)card->resets,
           begun ? (double)(nanoseconds() - begun) / (double)SECOND : 0.0);
    const char *name = "received";
    for (const struct queue *queues = card->rx; queues;
         queues = queues == card->rx ? card->tx : NULL) {
        uint32_t last = QUEUES;
        while (last && !queues[last - 1].frames)
            last--;
        printf(", \"%s\": [", name);
        for (uint32_t q = 0; q < last; q++)
            printf("%s%llu", q ? ", " : "", (unsigned long long)queues[q].frames);
        printf("]");
        name = "transmitted";
    }
    if (card->fault[0])
        printf(", \"fault\": \"%s\"}\n", card->fault); /* no quotes in these sentences */
    else
        printf(", \"fault\": null}\n");
    fflush(stdout);
}

static bool input_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char dropped[64];
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, dropped, sizeof dropped) <= 0;
}

static int print_hash(const char *key_text, const char *data_text)
{
    uint8_t key[64] = {0}, data[36] = {0};
    unsigned value;
    size_t bytes = 0;
    for (size_t i = 0; i < 40 && sscanf(key_text + 2 * i, "%2x", &value) == 1; i++)
        key[i] = (uint8_t)value;
    for (; bytes < 36 && sscanf(data_text + 2 * bytes, "%2x", &value) == 1; bytes++)
        data[bytes] = (uint8_t)value;
    printf("%08x\n", toeplitz(key, data, bytes));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "toeplitz") == 0)
        return print_hash(argv[2], argv[3]);
    if (argc < 6) {
        fprintf(stderr, "usage: card SYSFS ADDRESS INSTANCE FRAMES SECONDS [swap]\n");
        return 2;
    }
    static struct card card;
    static struct traffic traffic;
    static uint8_t frame[1514];
    card.instance = argv[3];
    traffic.frames = strtoull(argv[4], NULL, 10);
    traffic.swapped = argc > 6;
    traffic.seen = calloc(traffic.frames + 1, 1);
    if (!traffic.seen)
        die("calloc");
    appear(&card, argv[1], argv[2]);
    uint64_t deadline = nanoseconds() + strtoull(argv[5], NULL, 10) * SECOND;
    uint64_t begun = 0;
    uint32_t pending = 0, idle = 0;
    bool reported = false;
    for (uint64_t pass = 0;; pass++) {
        uint32_t work = 0;
        if (pass % 64 == 0 || idle) {
            card_control(&card);
            uint64_t now = nanoseconds();
            if (input_ended() || now > deadline + 60 * SECOND)
                break;
            if (!reported &&
                (now > deadline || card.fault[0] || traffic.returned == traffic.frames)) {
                report(&card, &traffic, begun);
                reported = true;
            }
        }
        if (!card.fault[0]) {
            work += card_transmit(&card, traffic_check, &traffic);
            for (int i = 0; i < 64 && traffic.sent < traffic.frames && card_receives(&card); i++) {
                if (!begun)
                    begun = nanoseconds();
                if (!pending)
                    pending = traffic_frame(traffic.sent, frame);
                if (!card_receive(&card, frame, pending))
                    break;
                pending = 0;
                traffic.sent++;
                work++;
            }
        }
        /* The driver may run on the same processor. */
        idle = work ? 0 : idle + 1;
        if (idle > 1000)
            usleep(50);
        else if (idle)
            sched_yield();
    }
    if (!reported)
        report(&card, &traffic, begun);
    return traffic.returned == traffic.frames && !traffic.damaged && !traffic.duplicates &&
                   !traffic.out_of_order && !card.fault[0]
               ? 0
               : 1;
}
