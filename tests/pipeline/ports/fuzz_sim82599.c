/* Random accesses to the model under ASan and UBSan: for any content of registers,
 * descriptors, frames and mailbox, the model stays within its windows and its own
 * memory, and its counters balance.
 *
 * Arguments: seed, rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "../../../pipeline/ports/sim82599/sim82599.h"

#define DESCRIPTORS_BUS 0x10000000ull
#define PACKETS_BUS 0x100000000ull
#define DESCRIPTOR_BYTES (64u << 10)
#define PACKET_BYTES (256u << 10)
#define FRAMES 64

static uint64_t state;

static uint32_t chance(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % limit);
}

static uint64_t anything(void)
{
    uint64_t low = chance(1u << 31);
    return low << 33 ^ (uint64_t)chance(1u << 31) << 8 ^ chance(1u << 31);
}

/* A plausible value for a register; one in eight is random. */
static uint32_t value_for(uint32_t reg)
{
    if (chance(8) == 0)
        return (uint32_t)anything();
    switch (reg & 0x3f) {
    case 0x00:
        return (uint32_t)DESCRIPTORS_BUS + chance(DESCRIPTOR_BYTES / 128) * 128;
    case 0x04:
        return chance(16) == 0;
    case 0x08:
        return (1 + chance(8)) * 128;
    case 0x10:
    case 0x18:
        return chance(64);
    case 0x14:
        return (1 + chance(3)) | 1u << 25 | chance(2) << 28;
    case 0x28:
        return 1u << 25 | chance(2) << 30 | chance(4) << 16;
    default:
        return (uint32_t)anything();
    }
}

static uint32_t some_register(void)
{
    static const uint32_t known[] = {
        0x0,    0x800,  0x808,  0x820,  0x880,  0x898,  0x900,  0x904,  0xaa0,  0x10014, 0x8,
        0x18,   0x2f00, 0x3000, 0x3c00, 0x4240, 0x4268, 0x42a0, 0x42a4, 0x42a8, 0x4900,  0x4a80,
        0x5000, 0x5080, 0x5088, 0x5818, 0x5c00, 0x5c80, 0x8100, 0x8d00, 0x8d04, 0xcc00,  0x10010};
    switch (chance(8)) {
    case 0:
        return chance(RL_SIM_BAR_BYTES + 64);
    case 1:
        return known[chance(sizeof known / sizeof *known)];
    case 2:
    case 3:
        return 0x6000 + 0x40 * chance(4) + 4 * chance(16);
    default:
        return 0x1000 + 0x40 * chance(4) + 4 * chance(16);
    }
}

static void poll_register(struct rl_sim *sim, uint32_t reg)
{
    for (uint32_t i = 0; i < 8; i++)
        rl_sim_read(sim, reg);
}

static void change(struct rl_sim *sim, uint32_t reg, uint32_t clear, uint32_t set)
{
    rl_sim_write(sim, reg, (rl_sim_read(sim, reg) & ~clear) | set);
}

/* Initialise the card so that traffic flows, from any state. */
static void bring_up(struct rl_sim *sim)
{
    rl_sim_write(sim, 0x888, ~0u);
    rl_sim_write(sim, 0x0, 1u << 26 | 1u << 3);
    poll_register(sim, 0x0);
    poll_register(sim, 0x10010);
    poll_register(sim, 0x2f00);
    rl_sim_write(sim, 0x42a8, 2u << 16);
    rl_sim_write(sim, 0x42a0, 3u << 13 | 1u << 12);
    poll_register(sim, 0x42a4);
    change(sim, 0x2f00, 0, chance(2) << 1);
    rl_sim_write(sim, 0x5080, 7u << 8);
    rl_sim_write(sim, 0x5818, chance(4) ? 0x00f30001 : (uint32_t)anything());
    for (uint32_t i = 0; i < 32; i++)
        rl_sim_write(sim, 0x5c00 + 4 * i, (uint32_t)anything() & 0x03030303);
    for (uint32_t i = 0; i < 10; i++)
        rl_sim_write(sim, 0x5c80 + 4 * i, (uint32_t)anything());
    if (chance(2)) {
        change(sim, 0x4240, 0, 1u << 2);
        rl_sim_write(sim, 0x4268, chance(0x10000) << 16);
    }
    rl_sim_write(sim, 0x4a80, 0x81000001);
    for (uint32_t queue = 0; queue < 4; queue++) {
        for (uint32_t bank = 0x1000; bank <= 0x6000; bank += 0x5000) {
            uint32_t at = bank + 0x40 * queue;
            static const uint32_t offsets[] = {0x0, 0x8, 0x14, 0x28};
            for (uint32_t i = 0; i < 4; i++)
                if (offsets[i] != 0x14 || bank == 0x1000)
                    rl_sim_write(sim, at + offsets[i], value_for(offsets[i]));
            poll_register(sim, at + 0x28);
        }
    }
    rl_sim_write(sim, 0x8d00, 2);
    poll_register(sim, 0x8d04);
    rl_sim_write(sim, 0x3000, 1);
    rl_sim_write(sim, 0x8d00, 0);
}

static void scribble(uint8_t *descriptors, uint8_t *packets)
{
    uint64_t *words = (uint64_t *)(void *)descriptors;
    uint64_t command = chance(8) ? 0x2b300000ull : 0x2a300000ull; /* with EOP or without */
    for (uint32_t i = 0; i < DESCRIPTOR_BYTES / 8; i += 2) {
        uint32_t length = chance(16) ? 60 + chance(200) : 1 + chance(0xffff);
        words[i] = PACKETS_BUS + chance(PACKET_BYTES - 4096);
        if (chance(64) == 0)
            words[i] = PACKETS_BUS + PACKET_BYTES - chance(2 * length);
        words[i + 1] = command | length | (uint64_t)length << 46;
        if (chance(128) == 0)
            words[i] = anything();
        if (chance(32) == 0)
            words[i + 1] ^= 1ull << chance(64);
        if (chance(16) == 0) { /* a context, and a packet that uses it */
            words[i] = (14 << 9 | 20) ^ (chance(8) ? 0 : anything());
            words[i + 1] = 2u << 20 | 1u << 29 | chance(4) << 11 | chance(2) << 10 |
                           (uint64_t)(chance(8) ? 20 : chance(256)) << 40 |
                           (uint64_t)chance(chance(4) ? 400 : 0x10000) << 48;
        } else if (chance(8) == 0) {
            words[i + 1] |= (uint64_t)chance(4) << 40;
            if (chance(2))
                words[i + 1] = (words[i + 1] | 1u << 31) - (54ull << 46);
        }
    }
    for (uint32_t i = 0; i < 64; i++)
        packets[chance(PACKET_BYTES)] = (uint8_t)anything();
}

static int32_t load(struct rl_sim *sim)
{
    static const uint8_t starts[4][24] = {
        {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17},
        {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64, 1, 2},
        {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0, 5, 0x08, 0, 0x4f, 0, 0, 90, 0, 0},
        {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 1, 0}};
    static uint8_t data[FRAMES * 20000];
    uint64_t offsets[FRAMES];
    uint32_t lengths[FRAMES];
    uint32_t order[3 * FRAMES];
    uint64_t at = 0;
    uint32_t frames = chance(2) ? FRAMES : 1 + chance(2);
    for (uint32_t i = 0; i < frames; i++) {
        const uint8_t *start = starts[chance(4)];
        offsets[i] = at;
        lengths[i] = chance(4) ? 60 + chance(64) : chance(8) ? chance(2000) : chance(20000);
        for (uint32_t n = 0; n < lengths[i]; n++)
            data[at + n] = n < 24 && chance(32) ? start[n] : (uint8_t)anything();
        at += lengths[i];
    }
    for (uint32_t i = 0; i < 3 * FRAMES; i++)
        order[i] = chance(frames);
    struct rl_sim_source source = {
        .data = data,
        .data_bytes = at,
        .offsets = offsets,
        .lengths = lengths,
        .frames = frames,
        .order_length = 1 + chance(3 * FRAMES),
        .order = order,
        .total = chance(2) * chance(100000),
        .rate = chance(3) ? 0 : 1e6 * (1 + chance(50)),
    };
    if (chance(32) == 0)
        order[0] = frames;
    if (chance(32) == 0)
        offsets[chance(frames)] = anything();
    return rl_sim_source(sim, &source);
}

/* Memory comes and goes, also in the middle of a ring or a buffer. */
static void remap(struct rl_sim *sim, uint8_t *descriptors, uint8_t *packets)
{
    uint32_t at = chance(DESCRIPTOR_BYTES), bytes = 1 + chance(DESCRIPTOR_BYTES - at);
    rl_sim_unmap(sim, chance(2) ? DESCRIPTORS_BUS + at : anything(), bytes);
    rl_sim_unmap(sim, PACKETS_BUS + at, bytes);
    if (chance(4)) {
        rl_sim_map(sim, DESCRIPTORS_BUS + at, descriptors + at, bytes);
        rl_sim_map(sim, PACKETS_BUS + at, packets + at, bytes);
    }
}

/* The wire is a socket pair, of which `far` is the other end. */
static void talk(int far)
{
    static uint8_t frame[20000];
    for (uint32_t i = 0; i < 64; i++)
        frame[i] = (uint8_t)anything();
    frame[0] = 0xff;
    send(far, frame, 1 + chance(chance(4) ? 1600 : sizeof frame - 1), MSG_DONTWAIT);
    while (chance(8) && recv(far, frame, sizeof frame, MSG_DONTWAIT) > 0)
        ;
}

static int unbalanced(const struct rl_sim_wire *wire)
{
    return wire->offered != wire->delivered + wire->held + wire->dropped_filtered +
                                wire->dropped_oversize + wire->dropped_undersize +
                                wire->dropped_no_descriptor + wire->dropped_no_space +
                                wire->dropped_disabled + wire->dropped_dma;
}

static int round_of(uint32_t number)
{
    uint8_t *descriptors = aligned_alloc(4096, DESCRIPTOR_BYTES);
    uint8_t *packets = malloc(PACKET_BYTES);
    struct rl_sim_config config = {.left_running = (uint8_t)chance(2),
                                   .foreign = (uint8_t)chance(2),
                                   .backplane = chance(4) == 0};
    int ends[2] = {-1, -1};
    struct rl_sim *sim = rl_sim_new(&config);
    struct rl_sim_card *card = rl_sim_card(sim);
    FILE *record = chance(2) ? tmpfile() : NULL;
    int bad = 0;
    for (uint32_t i = 0; i < PACKET_BYTES; i++)
        packets[i] = (uint8_t)i;
    scribble(descriptors, packets);
    rl_sim_map(sim, DESCRIPTORS_BUS, descriptors, DESCRIPTOR_BYTES);
    rl_sim_map(sim, PACKETS_BUS, packets, PACKET_BYTES);
    load(sim);
    if (chance(2) && socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0) {
        rl_sim_live(sim, ends[0], NULL, 0);
        rl_sim_vector(sim, chance(64), ends[0]);
    }
    if (record != NULL)
        rl_sim_record(sim, chance(8) ? fileno(record) : -1);
    if (chance(8))
        bring_up(sim);
    for (uint32_t i = 0; i < 400 && !bad; i++) {
        uint32_t reg = some_register();
        switch (chance(12)) {
        case 0:
            rl_sim_write(sim, reg, value_for(reg));
            break;
        case 1:
            rl_sim_read(sim, reg);
            break;
        case 2:
            card->mailbox.operation = chance(5);
            card->mailbox.reg = reg;
            card->mailbox.value = value_for(reg);
            card->mailbox.request++;
            rl_sim_serve(sim);
            break;
        case 3:
            if (chance(4) == 0)
                scribble(descriptors, packets);
            if (chance(16) == 0)
                bring_up(sim);
            if (chance(64) == 0)
                load(sim);
            if (chance(16) == 0)
                remap(sim, descriptors, packets);
            if (chance(64) == 0)
                rl_sim_function_reset(sim);
            break;
        default: {
            if (ends[1] >= 0)
                talk(ends[1]);
            volatile uint32_t *tail =
                rl_sim_tail(sim, (chance(2) ? 0x1018 : 0x6018) + 0x40 * chance(4));
            if (tail != NULL)
                *tail = chance(64) ? chance(64) : (uint32_t)anything();
            rl_sim_step(sim);
        }
        }
        bad = unbalanced(&card->wire);
    }
    if (bad)
        fprintf(stderr, "round %u: the wire's books do not balance\n", number);
    if (chance(2))
        rl_sim_record_flush(sim);
    rl_sim_free(sim);
    if (record != NULL)
        fclose(record);
    if (ends[0] >= 0) {
        close(ends[0]);
        close(ends[1]);
    }
    free(descriptors);
    free(packets);
    return bad;
}

int main(int count, char **arguments)
{
    uint32_t rounds = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : 100;
    state = 0x9e3779b97f4a7c15ull ^ (count > 1 ? strtoull(arguments[1], NULL, 10) : 1);
    for (uint32_t i = 0; i < rounds; i++)
        if (round_of(i))
            return 1;
    return 0;
}
