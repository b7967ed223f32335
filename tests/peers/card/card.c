#include "card.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Registers, named as in the datasheet. */
#define CTRL 0x00000
#define CTRL_MASTER_DISABLE (1u << 2)
#define CTRL_LRST (1u << 3)
#define CTRL_RST (1u << 26)
#define STATUS 0x00008
#define STATUS_MASTER_ENABLED (1u << 19)
#define EEC 0x10010
#define EEC_AUTO_READ_DONE (1u << 9)
#define AUTOC 0x042A0
#define LINKS 0x042A4
#define LINKS_UP_10G (1u << 30 | 3u << 28)
#define RDRXCTL 0x02F00
#define RDRXCTL_CRC_STRIP (1u << 1)
#define RDRXCTL_DMA_INIT_DONE (1u << 3)
#define HLREG0 0x04240
#define HLREG0_RX_CRC_STRIP (1u << 1)
#define RXCTRL 0x03000
#define SECRXCTRL 0x08D00
#define SECRXSTAT 0x08D04
#define FCTRL 0x05080
#define FCTRL_UNICAST_PROMISCUOUS (1u << 9)
#define RAL0 0x05400
#define RAH0 0x05404
#define RAH_VALID (1u << 31)
#define RXCSUM 0x05000
#define RXCSUM_PCSD (1u << 13)
#define MRQC 0x05818
#define RSSRK 0x05C80
#define RETA 0x05C00
#define DMATXCTL 0x04A80

#define RX_QUEUE(q) ((q) < 64 ? 0x01000 + 0x40 * (q) : 0x0D000 + 0x40 * ((q)-64))
#define TX_QUEUE(q) (0x06000 + 0x40 * (q))
/* Offsets in both banks: BAL, BAH, LEN, head, tail, DCTL. */
#define BAL 0x00
#define BAH 0x04
#define LEN 0x08
#define HEAD 0x10
#define TAIL 0x18
#define DCTL 0x28
#define DCTL_ENABLE (1u << 25)
#define SRRCTL(q) ((q) < 16 ? 0x02100 + 4 * (q) : RX_QUEUE(q) + 0x14)

#define DESCRIPTORS_AT 0x10000000ull
#define PACKETS_AT 0x100000000ull

static const uint8_t MAC[6] = {0x02, 0x82, 0x59, 0x90, 0x00, 0x01};

uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t get(const struct card *card, uint32_t address)
{
    return __atomic_load_n(card->bar + address / 4, __ATOMIC_ACQUIRE);
}

static void put(struct card *card, uint32_t address, uint32_t value)
{
    __atomic_store_n(card->bar + address / 4, value, __ATOMIC_RELEASE);
}

/* Change bits of a register atomically: the driver may write it at the same time. */
static void change(struct card *card, uint32_t address, uint32_t clear, uint32_t set)
{
    uint32_t old = get(card, address);
    while (!__atomic_compare_exchange_n(card->bar + address / 4, &old, (old & ~clear) | set, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

__attribute__((format(printf, 2, 3))) static void fail(struct card *card, const char *format, ...)
{
    va_list arguments;
    if (card->fault[0])
        return; /* keep the first fault: it is the cause of later ones */
    va_start(arguments, format);
    vsnprintf(card->fault, sizeof card->fault, format, arguments);
    va_end(arguments);
}

/* ---- DMA memory ---- */

static bool map_file(struct window *window, const char *path)
{
    struct stat found;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    void *memory = MAP_FAILED;
    if (fstat(fd, &found) == 0 && found.st_size > 0)
        memory = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return false;
    window->memory = memory;
    window->bytes = (size_t)found.st_size;
    return true;
}

/* The segment `what` of the instance: in /dev/shm, or under a hugetlbfs mount. */
static bool map_segment(struct card *card, struct window *window, const char *what)
{
    char path[768], mount[512], type[64], line[2048];
    snprintf(path, sizeof path, "/dev/shm/ringline.%s.%s", card->instance, what);
    if (map_file(window, path))
        return true;
    FILE *mounts = fopen("/proc/mounts", "r");
    bool found = false;
    while (mounts && !found && fgets(line, sizeof line, mounts)) {
        if (sscanf(line, "%*s %511s %63s", mount, type) != 2 || strcmp(type, "hugetlbfs") != 0)
            continue;
        snprintf(path, sizeof path, "%s/ringline.%s.%s", mount, card->instance, what);
        found = map_file(window, path);
    }
    if (mounts)
        fclose(mounts);
    return found;
}

static void unmap(struct window *window)
{
    if (window->memory)
        munmap(window->memory, window->bytes);
    window->memory = NULL;
    window->bytes = 0;
}

/* Host address of `bytes` at a device address, or NULL and a fault. Segments are
 * mapped when first needed: ringline creates them after the card has started. */
static uint8_t *dma(struct card *card, struct window *window, const char *what, uint64_t address,
                    uint64_t bytes)
{
    if (!(card->config[4] & 4)) { /* command register, bus master enable */
        fail(card, "DMA with bus mastering off");
        return NULL;
    }
    if (!window->memory && !map_segment(card, window, what)) {
        fail(card, "DMA to 0x%llx: there is no segment ringline.%s.%s", (unsigned long long)address,
             card->instance, what);
        return NULL;
    }
    uint64_t offset = address - window->address;
    if (address < window->address || offset > window->bytes || bytes > window->bytes - offset) {
        fail(card, "DMA to 0x%llx, %llu bytes: outside the %s of %zu bytes",
             (unsigned long long)address, (unsigned long long)bytes, what, window->bytes);
        return NULL;
    }
    return window->memory + offset;
}

/* ---- control ---- */

static void reset(struct card *card)
{
    for (uint32_t address = 4; address < BAR_BYTES; address += 4)
        put(card, address, 0);
    memset(card->rx, 0, sizeof card->rx);
    memset(card->tx, 0, sizeof card->tx);
    card->rx_queues = card->tx_queues = 0;
    unmap(&card->descriptors);
    unmap(&card->packets);
    put(card, RAL0, (uint32_t)MAC[0] | MAC[1] << 8 | MAC[2] << 16 | (uint32_t)MAC[3] << 24);
    put(card, RAH0, (uint32_t)MAC[4] | MAC[5] << 8 | RAH_VALID);
    put(card, STATUS, STATUS_MASTER_ENABLED);
    card->ready_at = nanoseconds() + 3000000;
    /* Last, because the driver waits for this bit. */
    put(card, CTRL, 0);
    card->resets++;
}

void card_start(struct card *card)
{
    card->descriptors.address = DESCRIPTORS_AT;
    card->packets.address = PACKETS_AT;
    reset(card);
    card->resets = 0;
}

/* Enable or disable a queue as its control register says. */
static bool follow(struct card *card, struct queue *queue, uint32_t registers)
{
    bool wanted = get(card, registers + DCTL) & DCTL_ENABLE;
    if (wanted && !queue->enabled) {
        queue->base = get(card, registers + BAL) | (uint64_t)get(card, registers + BAH) << 32;
        queue->entries = get(card, registers + LEN) / 16;
        queue->head = get(card, registers + HEAD);
        if (queue->base % 128 || queue->entries % 8 || !queue->entries)
            fail(card, "a queue at 0x%llx with %u descriptors", (unsigned long long)queue->base,
                 queue->entries);
    }
    queue->enabled = wanted;
    return wanted;
}

void card_control(struct card *card)
{
    uint32_t control = get(card, CTRL);
    if (control & (CTRL_RST | CTRL_LRST)) {
        reset(card);
        return;
    }
    bool ready = nanoseconds() >= card->ready_at;
    if (ready && !(get(card, EEC) & EEC_AUTO_READ_DONE))
        change(card, EEC, 0, EEC_AUTO_READ_DONE);
    if (ready && !(get(card, RDRXCTL) & RDRXCTL_DMA_INIT_DONE))
        change(card, RDRXCTL, 0, RDRXCTL_DMA_INIT_DONE);
    bool disabled = control & CTRL_MASTER_DISABLE;
    put(card, STATUS, disabled ? 0 : STATUS_MASTER_ENABLED);
    put(card, SECRXSTAT, get(card, SECRXCTRL) >> 1 & 1);
    /* LMS 3 is 10G serial, the only kind of link that this card has. */
    put(card, LINKS, ready && (get(card, AUTOC) >> 13 & 7) == 3 ? LINKS_UP_10G : 0);
    if (!ready && get(card, RXCTRL) & 1)
        fail(card, "the receiver was enabled before DMA initialisation was done");
    card->rx_queues = card->tx_queues = 0;
    for (uint32_t q = 0; q < QUEUES && !disabled; q++) {
        if (follow(card, &card->rx[q], RX_QUEUE(q)))
            card->rx_queues = q + 1;
        if (follow(card, &card->tx[q], TX_QUEUE(q)))
            card->tx_queues = q + 1;
    }
    for (uint32_t i = 0; i < 40; i++)
        card->key[i] = (uint8_t)(get(card, RSSRK + i / 4 * 4) >> 8 * (i % 4));
}

/* ---- receive ---- */

bool card_receives(struct card *card)
{
    return card->rx_queues && get(card, RXCTRL) & 1 && get(card, LINKS) & 1u << 30 &&
           !(get(card, SECRXCTRL) & 2);
}

/* The RSS hash: each bit i of the data that is set adds (XOR) the 32 bits of the key
 * from bit i on. */
uint32_t toeplitz(const uint8_t *key, const uint8_t *data, size_t bytes)
{
    uint32_t hash = 0;
    uint32_t window =
        (uint32_t)key[0] << 24 | (uint32_t)key[1] << 16 | (uint32_t)key[2] << 8 | key[3];
    for (size_t i = 0; i < bytes; i++) {
        for (int bit = 7; bit >= 0; bit--) {
            if (data[i] >> bit & 1)
                hash ^= window;
            window = window << 1 | (key[i + 4] >> bit & 1);
        }
    }
    return hash;
}

/* Parse the headers: packet type for the descriptor, hash, queue. */
struct parsed {
    uint32_t rss_type;
    uint32_t packet_type;
    uint32_t hash;
    uint32_t queue;
};

static struct parsed parse(struct card *card, const uint8_t *frame)
{
    struct parsed parsed = {0, 0, 0, 0};
    uint32_t mrqc = get(card, MRQC);
    uint8_t input[36];
    size_t bytes = 0;
    bool v4 = frame[12] == 0x08 && frame[13] == 0x00;
    bool v6 = frame[12] == 0x86 && frame[13] == 0xdd;
    if (!v4 && !v6)
        return parsed;
    uint8_t protocol = v4 ? frame[23] : frame[20];
    bool tcp = protocol == 6, udp = protocol == 17;
    const uint8_t *ports = v4 ? frame + 14 + 4 * (frame[14] & 15) : frame + 54;
    parsed.packet_type = (v4 ? 1u : 4u) | (tcp ? 16u : 0) | (udp ? 32u : 0);
    if ((mrqc & 15) != 1)
        return parsed;
    size_t addresses = v4 ? 8 : 32;
    bool with_ports = (tcp && mrqc >> (v4 ? 16 : 21) & 1) || (udp && mrqc >> (v4 ? 22 : 23) & 1);
    if (!with_ports && !(mrqc >> (v4 ? 17 : 20) & 1))
        return parsed;
    memcpy(input, frame + (v4 ? 26 : 22), addresses);
    bytes = addresses;
    if (with_ports) {
        memcpy(input + addresses, ports, 4);
        bytes += 4;
    }
    parsed.hash = toeplitz(card->key, input, bytes);
    parsed.queue = get(card, RETA + (parsed.hash & 127) / 4 * 4) >> 8 * (parsed.hash & 3) & 15;
    if (!with_ports)
        parsed.rss_type = v4 ? 2 : 5;
    else
        parsed.rss_type = tcp ? (v4 ? 1 : 3) : (v4 ? 7 : 8);
    return parsed;
}

static bool for_us(const struct card *card, const uint8_t *frame)
{
    uint32_t low = get(card, RAL0), high = get(card, RAH0);
    uint8_t own[6] = {(uint8_t)low,         (uint8_t)(low >> 8), (uint8_t)(low >> 16),
                      (uint8_t)(low >> 24), (uint8_t)high,       (uint8_t)(high >> 8)};
    return get(card, FCTRL) & FCTRL_UNICAST_PROMISCUOUS ||
           (high & RAH_VALID && memcmp(own, frame, 6) == 0);
}

bool card_receive(struct card *card, const uint8_t *frame, uint32_t bytes)
{
    struct parsed parsed = parse(card, frame);
    struct queue *queue = &card->rx[parsed.queue];
    uint32_t registers = RX_QUEUE(parsed.queue);
    if (!queue->enabled) {
        fail(card, "the redirection table names queue %u, which is not enabled", parsed.queue);
        return false;
    }
    uint32_t tail = get(card, registers + TAIL);
    if (tail >= queue->entries) {
        fail(card, "tail %u of receive queue %u with %u descriptors", tail, parsed.queue,
             queue->entries);
        return false;
    }
    if (queue->head == tail)
        return false;
    if (!for_us(card, frame)) {
        fail(card, "a frame to the card's own address did not pass its filter");
        return false;
    }
    uint32_t srrctl = get(card, SRRCTL(parsed.queue));
    uint32_t room = (srrctl & 31) << 10;
    bool strips = get(card, HLREG0) & HLREG0_RX_CRC_STRIP && get(card, RDRXCTL) & RDRXCTL_CRC_STRIP;
    uint32_t length = bytes + (strips ? 0 : 4);
    if ((srrctl >> 25 & 7) != 1 || length > room) {
        fail(card, "SRRCTL 0x%x of receive queue %u: a frame of %u bytes cannot be written", srrctl,
             parsed.queue, length);
        return false;
    }
    uint8_t *descriptor =
        dma(card, &card->descriptors, "descriptors", queue->base + 16ull * queue->head, 16);
    if (!descriptor)
        return false;
    uint64_t address;
    memcpy(&address, descriptor, 8);
    /* The card may write as many bytes as SRRCTL allows: they must all be in the segment. */
    uint8_t *buffer = dma(card, &card->packets, "packets", address, room);
    if (!buffer)
        return false;
    memcpy(buffer, frame, bytes);
    memset(buffer + bytes, 0xEE, length - bytes);
    bool hashed = get(card, RXCSUM) & RXCSUM_PCSD;
    uint32_t words[4] = {parsed.rss_type | parsed.packet_type << 4, hashed ? parsed.hash : 0, 0,
                         length};
    memcpy(descriptor, words, 8);
    memcpy(descriptor + 12, words + 3, 4);
    uint32_t status = 1 | 2 | (parsed.packet_type & 5 ? 1u << 6 : 0) |
                      (parsed.packet_type & 48 ? 1u << 5 : 0); /* DD, EOP, IPCS, L4CS */
    __atomic_store_n((uint32_t *)(void *)(descriptor + 8), status, __ATOMIC_RELEASE);
    queue->head = (queue->head + 1) % queue->entries;
    queue->frames++;
    put(card, registers + HEAD, queue->head);
    return true;
}

/* ---- transmit ---- */

/* Send the packet of one descriptor; false at a fault. */
static bool send_one(struct card *card, uint32_t q, struct queue *queue,
                     void (*sent)(void *, const uint8_t *, uint32_t), void *context)
{
    uint8_t *descriptor =
        dma(card, &card->descriptors, "descriptors", queue->base + 16ull * queue->head, 16);
    if (!descriptor)
        return false;
    uint64_t address;
    uint32_t command, payload;
    memcpy(&address, descriptor, 8);
    memcpy(&command, descriptor + 8, 4);
    memcpy(&payload, descriptor + 12, 4);
    uint32_t bytes = command & 0xffff;
    /* Advanced data descriptor, one per packet, with CRC insertion. */
    bool good = (command >> 20 & 15) == 3 && command & 1u << 29 && command & 1u << 24 &&
                command & 1u << 25 && payload >> 14 == bytes && bytes >= 17 && bytes <= FRAME_ROOM;
    if (!good) {
        fail(card, "transmit queue %u, descriptor %u: 0x%08x 0x%08x does not describe a frame", q,
             queue->head, command, payload);
        return false;
    }
    const uint8_t *frame = dma(card, &card->packets, "packets", address, bytes);
    if (!frame)
        return false;
    sent(context, frame, bytes);
    queue->head = (queue->head + 1) % queue->entries;
    queue->frames++;
    /* RS is only used with WTHRESH (bits 22:16) 0. */
    if (command & 1u << 27 && !(get(card, TX_QUEUE(q) + DCTL) >> 16 & 127))
        __atomic_store_n((uint32_t *)(void *)(descriptor + 12), 1, __ATOMIC_RELEASE);
    return true;
}

uint32_t card_transmit(struct card *card, void (*sent)(void *, const uint8_t *, uint32_t),
                       void *context)
{
    uint32_t total = 0;
    if (!(get(card, DMATXCTL) & 1))
        return 0;
    for (uint32_t q = 0; q < card->tx_queues; q++) {
        struct queue *queue = &card->tx[q];
        if (!queue->enabled)
            continue;
        uint32_t tail = get(card, TX_QUEUE(q) + TAIL);
        if (tail >= queue->entries) {
            fail(card, "tail %u of transmit queue %u with %u descriptors", tail, q, queue->entries);
            return total;
        }
        uint32_t burst = 0;
        while (queue->head != tail && burst < 64 && send_one(card, q, queue, sent, context))
            burst++;
        if (burst)
            put(card, TX_QUEUE(q) + HEAD, queue->head);
        total += burst;
    }
    return total;
}
