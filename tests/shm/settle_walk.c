/* A driver that test_settle_driver.py stops after every instruction.
 *
 *   settle_walk FD BUFFERS PASSES        FD is the lane's segment
 *
 * The lane is the real one (lane.c, settle.c, refuse.c). The two ports are minimal fakes, and the
 * worker of each queue is a function here, so everything runs in one thread. The 64-bit
 * number after the ledger counts the packets that the ports delivered. */
#define _GNU_SOURCE
#include "pipeline/driver/lane.h"
#include "pipeline/ports/memory.h"
#include "shm/ring.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#define PORTS 2
#define QUEUES 2
#define POSTED 6

struct fake_queue {
    uint32_t rx[POSTED];
    uint32_t rx_count;
    uint32_t tx[512];
    uint32_t tx_count;
};

static uint64_t *delivered;
static uint32_t turn;

static uint32_t rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n)
{
    struct fake_queue *mine = (struct fake_queue *)port->queues + queue;
    struct rl_memory *memory = port->memory;
    uint32_t got = 0;
    while (mine->rx_count < POSTED && memory->free_count > 0) {
        uint32_t buffer = memory->free[--memory->free_count];
        memory->ledger[buffer] = rl_ledger_card_rx(port->index);
        mine->rx[mine->rx_count++] = buffer;
    }
    for (; got < n && got < 1 + turn % POSTED && mine->rx_count > 0; got++)
        refs[got] = (struct rl_reference){.buffer = mine->rx[--mine->rx_count],
                                          .offset = (uint16_t)memory->headroom,
                                          .length = 60,
                                          .port = (uint8_t)port->index};
    *delivered += got;
    return got;
}

static uint32_t tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n)
{
    struct fake_queue *mine = (struct fake_queue *)port->queues + queue;
    uint32_t sent = 0;
    for (; sent < n && mine->tx_count < 5 + turn % 8; sent++)
        mine->tx[mine->tx_count++] = refs[sent].buffer;
    return sent;
}

static uint32_t reclaim(struct rl_port *port, uint32_t queue)
{
    struct fake_queue *mine = (struct fake_queue *)port->queues + queue;
    uint32_t n = turn % 3 ? mine->tx_count : 0;
    if (n)
        rl_buffers_sent(port->memory, mine->tx, n, rl_counters(port->memory, port->index, queue));
    mine->tx_count -= n;
    return n;
}

/* A worker: forwards, drops, reports errors, sends blanks, leaves some packets in the
 * ring, returns some twice, and returns a buffer that does not exist. */
static void work(struct rl_ring_end *in, struct rl_ring_end *out, uint32_t buffers)
{
    static const uint8_t verdicts[] = {0, 1, RL_VERDICT_DROP, 1, RL_VERDICT_ERROR, 0, 77};
    struct rl_reference refs[RL_BATCH_MAX];
    int got = rl_ring_pop(in, refs, turn % 5 ? 7 : 2);
    for (int i = 0; i < got; i++) {
        refs[i].port = verdicts[(refs[i].buffer + turn) % sizeof verdicts];
        if (refs[i].flags & RL_FLAG_BLANK)
            refs[i].length = 60;
        rl_ring_push(out, refs + i, 1);
        if (refs[i].buffer % 5 == 0)
            rl_ring_push(out, refs + i, 1);
        if (refs[i].buffer % 7 == 0) {
            refs[i].buffer = buffers + 3;
            rl_ring_push(out, refs + i, 1);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int fd = atoi(argv[1]);
    uint32_t buffers = (uint32_t)atoi(argv[2]), passes = (uint32_t)atoi(argv[3]);
    struct stat status;
    fstat(fd, &status);
    struct rl_lane_segment *books =
        mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    static struct rl_lane lane;
    static struct rl_port ports[PORTS];
    static struct fake_queue queues[PORTS][QUEUES];
    static struct rl_rings_segment rings[QUEUES][2];
    struct rl_ring_end in[QUEUES], out[QUEUES];
    lane.books = books;
    lane.memory = (struct rl_memory){.buffers = buffers,
                                     .stride = RL_BUFFER_STRIDE,
                                     .room = RL_BUFFER_STRIDE,
                                     .frame_max = RL_FRAME_MAX,
                                     .headroom = RL_BUFFER_HEADROOM,
                                     .free = calloc(buffers, sizeof(uint32_t)),
                                     .ledger = (uint32_t *)((char *)books + books->ledger_offset),
                                     .books = books};
    delivered = (uint64_t *)(lane.memory.ledger + buffers);
    for (uint32_t i = 0; i < buffers; i++)
        rl_buffer_free(&lane.memory, i);
    lane.ticks_per_64ns_shifted = 1 << 20;
    lane.receiving = 1;
    lane.queues = QUEUES;
    lane.port_count = PORTS;
    for (uint32_t p = 0; p < PORTS; p++) {
        ports[p] = (struct rl_port){.rx_burst = rx_burst,
                                    .tx_burst = tx_burst,
                                    .reclaim = reclaim,
                                    .memory = &lane.memory,
                                    .index = p,
                                    .queue_pairs = QUEUES,
                                    .frame_max = RL_FRAME_MAX,
                                    .ready = 1,
                                    .queues = queues[p],
                                    .event = -1};
        lane.ports[p] = &ports[p];
    }
    struct rl_settlement settlement;
    for (uint32_t q = 0; q < QUEUES; q++) {
        lane.slots[q].sampled = RL_NO_BUFFER;
        rl_lane_renew(&lane, q, &rings[q][0], 1, &settlement);
        in[q] = rl_ring_end_new(&rings[q][0].in);
        out[q] = rl_ring_end_new(&rings[q][0].out);
        lane.slots[q].blanks = 2;
    }
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        perror("ptrace");
        return 3;
    }
    raise(SIGSTOP);
    for (turn = 1; turn <= passes; turn++) {
        rl_lane_pass(&lane);
        for (uint32_t q = 0; q < QUEUES; q++)
            work(&in[q], &out[q], buffers);
        if (turn == passes / 3) { /* a worker dies while it holds packets and is replaced */
            rl_lane_renew(&lane, 0, &rings[0][1], 2, &settlement);
            in[0] = rl_ring_end_new(&rings[0][1].in);
            out[0] = rl_ring_end_new(&rings[0][1].out);
        }
        if (turn == passes / 2) /* a queue loses its worker: its packets are dropped */
            rl_lane_renew(&lane, 1, NULL, 0, &settlement);
        if (turn == passes * 2 / 3)
            ports[1].ready = 0;
    }
    return 0;
}
