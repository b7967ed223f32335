/* What a port on packet sockets is measured against: a bare loop over a TPACKET_V3 ring of the same
 * size, and a sender. tools/packet-port-speed compiles and runs it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define BLOCK 8192
#define BATCH 64

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static int opened(const char *name, int protocol)
{
    int fd = check(socket(AF_PACKET, SOCK_RAW, 0), "socket");
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons((uint16_t)protocol),
                             .sll_ifindex = (int)if_nametoindex(name)};
    check(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    return fd;
}

/* Read every frame's first bytes; print frames, and those that the kernel dropped. */
static void receive(const char *name, double seconds, uint32_t descriptors)
{
    int fd = opened(name, 0), version = TPACKET_V3;
    uint32_t blocks = descriptors * 2048 / BLOCK;
    struct tpacket_req3 ring = {BLOCK, blocks, 2048, descriptors, 1, 0, 0};
    check(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version), "version");
    check(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring), "ring");
    uint8_t *base = mmap(NULL, (size_t)blocks * BLOCK, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_POPULATE, fd, 0);
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(name)};
    check(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    uint64_t frames = 0, sum = 0;
    puts("ready");
    fflush(stdout);
    for (double end = now() + seconds; now() < end;) {
        static uint32_t block;
        struct tpacket_block_desc *head = (void *)(base + (size_t)block * BLOCK);
        if (!(__atomic_load_n(&head->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
            struct pollfd wait = {fd, POLLIN, 0};
            poll(&wait, 1, 10);
            continue;
        }
        uint8_t *at_frame = (uint8_t *)head + head->hdr.bh1.offset_to_first_pkt;
        for (uint32_t i = 0; i < head->hdr.bh1.num_pkts; i++) {
            const struct tpacket3_hdr *frame = (const void *)at_frame;
            sum += at_frame[frame->tp_mac] + frame->tp_snaplen;
            at_frame += frame->tp_next_offset;
            frames++;
        }
        __atomic_store_n(&head->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        block = (block + 1) % blocks;
    }
    struct tpacket_stats_v3 lost;
    socklen_t size = sizeof lost;
    check(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size), "statistics");
    printf("%llu %u %llu\n", (unsigned long long)frames, lost.tp_drops, (unsigned long long)sum);
}

/* Send frames of `length` bytes, in 256 flows of UDP over IPv4. */
static void transmit(const char *name, double seconds, uint32_t length)
{
    int fd = opened(name, 0), bypass = 1;
    static uint8_t frames[BATCH][1518];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    uint64_t sent = 0;
    check(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof bypass), "bypass");
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        const uint8_t head[] = {2,    0, 0,  0,  0, 2, 2,    0,          0,  0,  0, 1, 8,  0,
                                0x45, 0, 0,  46, 0, 0, 0x40, 0,          64, 17, 0, 0, 10, 77,
                                0,    1, 10, 77, 0, 2, 0x13, (uint8_t)i, 0,  9,  0, 26};
        memcpy(frames[i], head, sizeof head);
        parts[i] = (struct iovec){frames[i], length};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    double begin = now(), end = begin + seconds;
    while (now() < end) {
        int count = sendmmsg(fd, messages, BATCH, 0);
        sent += count > 0 ? (uint64_t)count : 0;
    }
    printf("%llu %.6f\n", (unsigned long long)sent, now() - begin);
}

int main(int count, char **words)
{
    if (count == 5 && strcmp(words[1], "receive") == 0)
        receive(words[2], atof(words[3]), (uint32_t)atoi(words[4]));
    else if (count == 5 && strcmp(words[1], "send") == 0)
        transmit(words[2], atof(words[3]), (uint32_t)atoi(words[4]));
    else
        return 2;
    return 0;
}
