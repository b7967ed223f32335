/* Internal state of the device model; a driver sees none of it. */
#ifndef RINGLINE_SIM82599_MODEL_H
#define RINGLINE_SIM82599_MODEL_H
#include <stdbool.h>
#include <string.h>
#include "../sim82599.h"

#define RL_SIM_QUEUES 128
#define RL_SIM_TX_QUEUES_MAX 64 /* without DCB and pools (MTQC = 0) */
#define RL_SIM_VECTORS 64
#define RL_SIM_PACKET_MAX 0x40200 /* bytes: the headers and PAYLEN of the longest packet */
#define RL_SIM_WAIT 3             /* polls until an operation that takes time is done */
#define RL_SIM_BATCH 64           /* frames per queue and step; TX: twice as many descriptors */
#define RL_SIM_OPEN_MAX 4096      /* frames from an open-loop wire in one step, at most */
#define RL_SIM_UNPUBLISHED_MAX 16 /* steps */
#define RL_SIM_SEGMENTS 40        /* maximum of descriptors per packet (datasheet 7.2) */
#define RL_SIM_LENGTH_MAX 15872   /* bytes of the longest frame for any MAXFRS: 15.5 KiB */
#define RL_SIM_CRC 4
#define RL_SIM_TAG 4
#define RL_SIM_MIN 60 /* bytes of the shortest frame, without CRC */

#define RL_SIM_LIKELY(x) __builtin_expect(!!(x), 1)
#define RL_SIM_UNLIKELY(x) __builtin_expect(!!(x), 0)

struct rl_sim_window {
    uint64_t bus;
    uint64_t size;
    uint8_t *host;
};

/* The properties of a frame that do not depend on registers; set when it is loaded. */
struct rl_sim_layers {
    uint32_t length;      /* in the source; may be more than any card accepts */
    uint32_t status;      /* checksum bits of the write-back's status and error word */
    uint32_t fragment;    /* fragment checksum and IP id, for the place of the RSS hash */
    uint16_t packet_type; /* as in the write-back, bits 16:4 of its first word */
    uint16_t addresses;   /* offset of the source address */
    uint16_t ports;       /* offset of the ports; 0: no ports to hash */
    uint16_t tag;         /* tag control information */
    uint8_t ip;           /* 4, 6 or 0 */
    uint8_t tcp;
    uint8_t udp;
    uint8_t tagged;
    uint8_t cast; /* destination: 0 unicast, 1 multicast, 2 broadcast */
};

/* A count of frames and of their bytes in one word, so that a frame costs one
 * addition. It holds 2^24 frames between two calls of rl_sim_publish. */
#define RL_SIM_ONE_FRAME (1ull << 40)
#define RL_SIM_FRAMES(count) ((count) >> 40)
#define RL_SIM_BYTES(count) ((count) & (RL_SIM_ONE_FRAME - 1))

#define RL_SIM_DELIVER 0
#define RL_SIM_FILTERED 1
#define RL_SIM_OVERSIZE 2
#define RL_SIM_UNDERSIZE 3

/* What the card does with a frame under the present registers: computed for the
 * first such frame after a register was written. 32 bytes: two per cache line. */
struct rl_sim_frame {
    const uint8_t *bytes;
    uint64_t lower; /* first word of the write-back */
    uint64_t upper; /* second word: status and errors; length from bit 32 */
    uint32_t epoch; /* of `sim` when this was computed; 0: unknown, or not to be delivered */
    uint8_t queue;
    uint8_t fate;
    uint8_t tagged;
    uint8_t size_class; /* size bin + 8 * cast: an index of `classes` */
};

static inline uint32_t rl_sim_length(const struct rl_sim_frame *frame)
{
    return (uint32_t)(frame->upper >> 32);
}

/* Counts since the last call of rl_sim_publish. */
struct rl_sim_tally {
    int64_t bytes; /* accepted by the MAC, but not (yet) on a queue; may be negative */
    uint64_t filtered;
    uint64_t filtered_bytes;
    uint64_t oversize;
    uint64_t undersize;
    uint64_t bad_bytes;
    uint64_t no_space;
    uint64_t disabled;
    uint64_t dma;
    uint64_t not_receiving;       /* arrived while the card did not receive */
    uint64_t not_receiving_bytes; /* of no_space and not_receiving */
    uint64_t refused;             /* packets not sent */
    uint64_t classes[24];         /* received: size bin + 8 * cast */
    uint64_t tx_classes[8];       /* sent: size bin */
};

struct rl_sim_rx_queue {
    volatile uint32_t *tail_register;
    uint64_t *ring;  /* NULL: not in any window */
    int64_t *stamps; /* by descriptor; NULL: frames have none */
    uint32_t size;
    uint32_t head;
    uint32_t noted_head;  /* an interrupt was caused for what is before it */
    uint32_t tail;        /* read at the start of the step */
    uint32_t whole_bytes; /* longest frame for the fast path */
    uint32_t buffer_bytes;
    uint64_t count;   /* delivered, not yet published: frames and bytes */
    uint64_t missed;  /* dropped with DROP_EN: no descriptor */
    uint64_t full_at; /* ns; since then it is full and gets no descriptor; 0: it is not full */
    uint8_t stalled;  /* full for so long that an endless closed-loop wire passes it by */
    uint8_t enabled;
    uint8_t wanted; /* last value written to ENABLE */
    uint8_t wait;   /* polls until it takes effect; 0: it has */
    uint8_t halted; /* by a fault, until the queue is enabled again */
    uint8_t drop;
    uint8_t strip;
};

struct rl_sim_context {
    uint64_t low;
    uint64_t high;
    uint8_t valid;
};

struct rl_sim_segment {
    uint64_t address;
    uint32_t length;
};

struct rl_sim_tx_queue {
    volatile uint32_t *tail_register;
    uint64_t *ring;
    uint32_t size;
    uint32_t head;
    uint64_t count;     /* sent, not yet published: packets and bytes */
    uint32_t threshold; /* WTHRESH */
    uint32_t unwritten; /* with a threshold: descriptors completed, not yet written back */
    uint8_t enabled;
    uint8_t wanted;
    uint8_t wait;
    uint8_t halted;
    /* A packet of several descriptors, until its last one. */
    uint32_t segment_count;
    uint32_t segment_bytes;
    uint64_t first; /* second word of its first descriptor */
    struct rl_sim_segment segments[RL_SIM_SEGMENTS];
    struct rl_sim_context contexts[2];
};

struct rl_sim_record {
    uint8_t *buffer;
    uint64_t used;
    uint64_t frames;  /* in the buffer */
    uint64_t written; /* bytes in the file, whole records */
    uint64_t last;    /* time stamp of the last record, ns */
    int32_t fd;       /* -1: none */
};

/* See interrupts.c. */
struct rl_sim_interrupts {
    uint64_t wanted; /* vectors of queues with a cause for which no message was sent */
    uint64_t other;  /* vectors with another cause */
    uint64_t sent_at[RL_SIM_VECTORS]; /* ns */
    uint64_t due;                     /* ns: the next moderated message; 0: none */
    uint64_t messages;
    int32_t fds[RL_SIM_VECTORS]; /* -1: none */
    bool on;                     /* some entry of IVAR is valid */
};

/* See live.c. */
struct rl_sim_live {
    uint8_t *bytes; /* frames that wait to be sent: the length in 32 bits, then the frame */
    uint32_t used;
    int32_t fd;          /* -1: none */
    uint8_t peer[112];   /* struct sockaddr of the other end */
    uint32_t peer_bytes; /* 0: `fd` is written to */
    bool pending;        /* a frame was read and is not delivered yet */
    uint64_t since;      /* ns: it waits for a descriptor since then; 0: it does not */
};

struct rl_sim {
    struct rl_sim_card *card;
    bool own_card;
    bool foreign; /* see struct rl_sim_config */
    bool backplane;
    uint8_t broken;
    uint8_t mac[6];
    uint8_t map[RL_SIM_BAR_BYTES / 4];        /* register -> entry of the register table */
    uint32_t registers[RL_SIM_BAR_BYTES / 4]; /* without tails, which are in card->tails */

    /* Polls until an operation is done; 0: it is. */
    uint32_t waiting; /* not 0: some operation is under way, and steps count as polls */
    uint8_t reset_wait;
    uint8_t eeprom_wait;
    uint8_t dma_wait;
    uint8_t master_wait;
    uint8_t link_wait;
    uint8_t security_wait;

    bool bus_master; /* PCI command register */
    bool master_off; /* CTRL bit 2 has taken effect */
    bool link_up;
    bool receive_hung;
    bool changed;   /* a register that rl_sim_refresh reads was written */
    bool receiving; /* RXEN, link and bus mastering allow it */
    bool transmitting;
    bool loopback;          /* see loopback.c */
    bool receive_unchecked; /* the set-up was not checked since it changed */
    bool transmit_unchecked;
    uint32_t crc_bytes; /* 4: CRC is left on frames */
    uint32_t vlan_type; /* of inserted tags: DMATXCTL.VT */
    uint32_t frame_max; /* without CRC and tag */
    uint32_t epoch;

    struct rl_sim_window *windows; /* by bus address; never NULL */
    uint32_t window_count;
    uint32_t window_capacity;
    uint32_t window_last; /* window of the last address */

    uint32_t rx_count; /* number of enabled queues; their indices are in rx_active */
    uint32_t tx_count;
    uint8_t rx_active[RL_SIM_QUEUES];
    uint8_t tx_active[RL_SIM_QUEUES];
    struct rl_sim_rx_queue rx[RL_SIM_QUEUES];
    struct rl_sim_tx_queue tx[RL_SIM_QUEUES];
    struct rl_sim_tally tally;
    struct rl_sim_interrupts interrupts;
    uint32_t unpublished; /* steps that moved something since the last publication */

    /* The wire. */
    struct rl_sim_frame *frames;
    struct rl_sim_layers *layers;
    uint8_t *bytes;
    uint32_t *order;
    int64_t *stamps;       /* by frame; NULL: none */
    uint64_t *due;         /* by index of `order`; NULL: no pace */
    uint32_t order_length; /* 0: no traffic arrives */
    uint32_t at;           /* next index of `order`; with `more` it stays at the end */
    void (*more)(void *context);
    void *context;
    bool asked; /* for more frames, in the present step */
    double pace;
    uint64_t period;
    uint64_t shift;       /* ns: repetitions so far, times `period` */
    uint64_t stamp_shift; /* the same, for the frame that is being delivered */
    uint64_t left;        /* frames still to arrive; ~0: no end */
    bool open;            /* frames arrive by the clock */
    double rate_ns;       /* frames per nanosecond */
    uint64_t began;       /* ns; start of the open-loop wire; 0: not started */
    uint64_t arrived;     /* frames since then */
    uint32_t passed;      /* frames for stalled queues in the present step */
    uint64_t stuck_at;    /* ns; since then the closed-loop wire waits for a disabled queue */
    uint32_t *held;       /* the packet buffer: frames without a descriptor, in order */
    uint32_t held_first;
    uint32_t held_count;
    uint32_t held_capacity;
    uint64_t held_bytes;
    uint64_t held_room; /* RXPBSIZE(0) */
    struct rl_sim_record record;
    struct rl_sim_live live;
    struct rl_sim_transits *transits; /* NULL: they are not measured */
    uint64_t *arrivals;   /* ns, by place in the windows: when a frame arrived; 0: unknown */
    uint32_t idle_passes; /* in a row, in rl_sim_run */
    uint8_t scratch[RL_SIM_PACKET_MAX + 64]; /* a packet to send */
    uint8_t segment[RL_SIM_PACKET_MAX + 64]; /* a segment of it */
};

/* faults.c */
void rl_sim_fault(struct rl_sim *sim, uint32_t kind, uint32_t queue, uint64_t address,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));
/* What the card does not mind, and a driver of ringline should not do: recorded as a fault unless
 * the driver is foreign. It never changes what the model does. */
#define rl_sim_lint(sim, ...)                                                                      \
    do {                                                                                           \
        if (!(sim)->foreign)                                                                       \
            rl_sim_fault(sim, __VA_ARGS__);                                                        \
    } while (0)

/* interrupts.c */
void rl_sim_cause(struct rl_sim *sim, uint32_t queue, bool transmit);
void rl_sim_cause_other(struct rl_sim *sim, uint32_t causes);
bool rl_sim_has_vector(const struct rl_sim *sim, uint32_t queue, bool transmit);
uint32_t rl_sim_read_causes(struct rl_sim *sim); /* and clear them */
bool rl_sim_write_interrupt(struct rl_sim *sim, uint32_t reg, uint32_t value);
void rl_sim_fire(struct rl_sim *sim); /* send the messages that are due */

/* bringup.c */
void rl_sim_power_on(struct rl_sim *sim);
void rl_sim_leave_running(struct rl_sim *sim);
void rl_sim_reset(struct rl_sim *sim, bool device, bool link);
void rl_sim_poll_all(struct rl_sim *sim);            /* a step polls all operations under way */
void rl_sim_poll(struct rl_sim *sim, uint8_t *wait); /* a read polls one of them */
void rl_sim_restart_link(struct rl_sim *sim);
void rl_sim_write_autoc(struct rl_sim *sim, uint32_t value);
void rl_sim_refresh(struct rl_sim *sim);
void rl_sim_check_receive(struct rl_sim *sim);
void rl_sim_check_transmit(struct rl_sim *sim);

/* queues.c */
void rl_sim_rx_enable(struct rl_sim *sim, uint32_t queue, bool on);
void rl_sim_tx_enable(struct rl_sim *sim, uint32_t queue, bool on);
void rl_sim_rx_done(struct rl_sim *sim, uint32_t queue);
void rl_sim_tx_done(struct rl_sim *sim, uint32_t queue);
void rl_sim_queues_off(struct rl_sim *sim);
uint32_t rl_sim_aligned(struct rl_sim *sim, uint32_t reg, uint32_t queue, uint32_t value);
void rl_sim_idle_tail(struct rl_sim *sim, uint32_t reg, uint32_t queue, uint32_t value,
                      const char *enable);

/* classify.c, rss.c */
void rl_sim_parse(const uint8_t *bytes, uint32_t length, struct rl_sim_layers *layers);
uint32_t rl_sim_classify(struct rl_sim *sim, struct rl_sim_frame *frame); /* its fate */
uint32_t rl_sim_rss(const struct rl_sim *sim, const uint8_t *bytes,
                    const struct rl_sim_layers *layers, uint32_t *type, uint32_t *queue);
uint32_t rl_sim_checksum(const uint8_t *bytes, uint32_t length, uint32_t sum);

/* receive.c, transmit.c */
uint32_t rl_sim_receive(struct rl_sim *sim);
uint32_t rl_sim_transmit(struct rl_sim *sim);
void rl_sim_look_at_tails(struct rl_sim *sim);

/* live.c */
uint32_t rl_sim_receive_live(struct rl_sim *sim);
bool rl_sim_live_full(const struct rl_sim *sim);
void rl_sim_live_send(struct rl_sim *sim, const uint8_t *bytes, uint32_t length);

/* wire.c, record.c */
uint64_t rl_sim_now(void);
void rl_sim_source_free(struct rl_sim *sim);
bool rl_sim_at_end(struct rl_sim *sim);    /* no frame is at hand now */
void rl_sim_held_drop(struct rl_sim *sim); /* drop the frames in the packet buffer */
void rl_sim_record_frame(struct rl_sim *sim, const uint8_t *frame, uint32_t length);

/* transits.c */
void rl_sim_note_arrival(struct rl_sim *sim, uint64_t bus, uint64_t due); /* ns; 0: unknown */
void rl_sim_note_departures(struct rl_sim *sim, const struct rl_sim_tx_queue *queue,
                            uint32_t descriptors);

/* dma.c: the same as rl_sim_reach, for any window. */
uint8_t *rl_sim_find(struct rl_sim *sim, uint64_t bus, uint64_t size);

/* Host address of `size` bytes at `bus`; NULL when no single window contains them. */
static inline uint8_t *rl_sim_reach(struct rl_sim *sim, uint64_t bus, uint64_t size)
{
    const struct rl_sim_window *window = &sim->windows[sim->window_last];
    uint64_t offset = bus - window->bus;
    if (RL_SIM_LIKELY(offset < window->size && size <= window->size - offset))
        return window->host + offset;
    return rl_sim_find(sim, bus, size);
}

/* Whether windows that follow each other contain `size` bytes at `bus`. */
bool rl_sim_covered(const struct rl_sim *sim, uint64_t bus, uint64_t size);

/* Copy to or from the memory at `bus`, which is covered: packets of PCI Express end at the end of a
 * page, so a card does not mind where the next page is. */
void rl_sim_copy_across(struct rl_sim *sim, uint64_t bus, uint8_t *own, uint64_t size, bool write);

/* Write `size` bytes to `bus`; false when they are not covered. */
static inline bool rl_sim_write_memory(struct rl_sim *sim, uint64_t bus, uint8_t *own,
                                       uint64_t size)
{
    uint8_t *to = rl_sim_reach(sim, bus, size);
    if (RL_SIM_LIKELY(to != NULL))
        memcpy(to, own, size);
    else if (rl_sim_covered(sim, bus, size))
        rl_sim_copy_across(sim, bus, own, size, true);
    else
        return false;
    return true;
}

static inline uint16_t rl_sim_be16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* Index of the size counter for a frame of `length` bytes without CRC. The bins are,
 * in bytes with CRC: 64, 65–127, 128–255, 256–511, 512–1023, 1024 and more. */
static inline uint32_t rl_sim_size_bin(uint32_t length)
{
    uint32_t bytes = length + RL_SIM_CRC;
    if (bytes <= 64)
        return 0;
    uint32_t bin = 26u - (uint32_t)__builtin_clz(bytes);
    return bin < 5 ? bin : 5;
}
#endif
