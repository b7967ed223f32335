/* A simulated Intel 82599 with a wire: a device model at the level of registers
 * and descriptors. Written from the card's documented behaviour, with its own
 * register constants: it includes nothing of the driver that it is there to try,
 * nor of the memory that this driver manages. Plain declarations: C and cffi
 * read this file.
 *
 * What it models
 *  - Reset (CTRL.RST and LRST clear themselves later; nothing may be written
 *    until then), master disable (STATUS bit 19), EEPROM auto-read and DMA
 *    initialisation that take time after a reset, interrupt mask.
 *  - The card as a previous owner left it: running, interrupts unmasked, a
 *    receive ring at an address that is nobody's, statistics not read, laser off.
 *  - Link: up only as a 10G serial link over SFI, laser on, and after a restart.
 *  - Statistics that a read clears, that survive a reset, and that count queues
 *    as RQSMR and TQSM map them: QPRC, QPRDC, QBRC, QPTC, QBTC, MPC, GPRC,
 *    GORC, GPTC, GOTC, TPR, TOR, TPT, BPRC, MPRC, PRC*, PTC*, RUC, ROC.
 *  - 128 receive and 64 transmit queues: ENABLE handshakes, sanity of base,
 *    length, SRRCTL; heads and tails; descriptors between them are the card's.
 *  - RXEN only while the security path is stopped; arbiter disable around
 *    TXPBSIZE and MTQC; DMATXCTL.TE before any transmit queue.
 *  - Receive: MAC, multicast, broadcast, VLAN filters, promiscuous modes; RSS by
 *    MRQC, RSSRK, RETA, RXCSUM.PCSD; checksum status; CRC strip; VLAN strip;
 *    buffers of SRRCTL's size, longer frames in several; runts and oversize;
 *    DROP_EN, and without it a packet buffer of RXPBSIZE that fills.
 *  - Transmit: advanced data and context descriptors, frames of several
 *    descriptors, PAYLEN, padding, VLAN insertion, RS and WTHRESH.
 *  - DMA through the windows it was given. Anything else is a fault, after
 *    which that queue stands still as it would behind an IOMMU.
 *
 * What it does not model
 *  - Time. What takes time on the card takes a number of looks at it here (reads
 *    of the register that shows it, or steps), so that a skipped wait is always
 *    noticed and never by chance. Line rate: a wire without a rate is as fast as
 *    the model.
 *  - Interrupts, DCA, flow control, DCB, virtualisation (pools, mailbox), RSC,
 *    header split, flow director and other queue filters, IPsec, MACsec,
 *    time stamps, TCP segmentation and checksum insertion, legacy descriptors,
 *    head write-back, double VLAN, EEPROM contents, PHY and firmware, frames
 *    that were damaged on the way. Their registers hold what is written, or a
 *    fault names what was asked for.
 *  - Unless the wire is recorded, transmitted bytes are not looked at, so
 *    multicast and broadcast are not told apart in transmit statistics.
 *
 * What the card would not do is refused and recorded as a fault: a kind, a
 * sentence, a count. A driver that works has none. */
#ifndef RINGLINE_SIM82599_H
#define RINGLINE_SIM82599_H
#include <stddef.h>
#include <stdint.h>

#define RL_SIM_BAR_BYTES 0x20000
#define RL_SIM_FAULTS 64

/* Kinds of fault. */
#define RL_SIM_FAULT_DMA 0          /* an address outside every window */
#define RL_SIM_FAULT_REGISTER 1     /* no such register, or not to be written so */
#define RL_SIM_FAULT_RESET 2        /* written while the reset is under way */
#define RL_SIM_FAULT_INITIALISING 3 /* written before EEPROM or DMA were ready */
#define RL_SIM_FAULT_MASTER 4       /* reset while the card may have DMA under way */
#define RL_SIM_FAULT_INTERRUPT 5    /* interrupts unmasked that nobody serves */
#define RL_SIM_FAULT_QUEUE 6        /* a queue that cannot be enabled or used so */
#define RL_SIM_FAULT_TAIL 7         /* a tail out of range, or before its time */
#define RL_SIM_FAULT_RECEIVE 8      /* receive set-up that the card does not work with */
#define RL_SIM_FAULT_RECEIVE_HANG 9 /* RXEN switched while the security path ran */
#define RL_SIM_FAULT_RX_DESCRIPTOR 10
#define RL_SIM_FAULT_TRANSMIT 11 /* transmit set-up that the card does not work with */
#define RL_SIM_FAULT_ARBITER 12  /* TXPBSIZE or MTQC while the arbiter ran */
#define RL_SIM_FAULT_TX_DESCRIPTOR 13
#define RL_SIM_FAULT_UNMODELLED 14 /* the card can, this model cannot */
#define RL_SIM_FAULT_KINDS 15

struct rl_sim_fault {
    uint64_t times;   /* in a row */
    uint64_t address; /* of DMA, or of the register */
    uint32_t kind;
    uint32_t queue;
    char text[168];
};

/* Register access from another process; see mailbox.c. */
struct rl_sim_mailbox {
    uint32_t request; /* counted up by the driver when the three below are set */
    uint32_t operation;
    uint32_t reg;
    uint32_t value;
    uint8_t request_line[48];
    uint32_t response; /* the request that `result` answers */
    uint32_t result;
    uint8_t response_line[56];
};
#define RL_SIM_READ 1
#define RL_SIM_WRITE 2
#define RL_SIM_BUS_MASTER 3

/* What the wire counts for itself; lengths without CRC.
 * offered = delivered + every drop + held, at any time between two steps. */
struct rl_sim_wire {
    uint64_t offered;
    uint64_t offered_bytes;
    uint64_t delivered; /* written into packet memory, whole */
    uint64_t delivered_bytes;
    uint64_t held;                  /* in the card's packet buffer */
    uint64_t dropped_filtered;      /* no filter let them in */
    uint64_t dropped_oversize;      /* ROC */
    uint64_t dropped_undersize;     /* RUC */
    uint64_t dropped_no_descriptor; /* QPRDC */
    uint64_t dropped_no_space;      /* MPC: the packet buffer is full */
    uint64_t dropped_disabled;      /* RXEN or the queue is off */
    uint64_t dropped_dma;
    uint64_t transmitted;
    uint64_t transmitted_bytes; /* padding and inserted tags included */
    uint64_t refused;           /* packets in TX descriptors that the card would not send */
    uint64_t recorded;          /* of the transmitted: written or buffered for the record */
    uint64_t record_error;      /* errno that ended the recording */
    uint64_t finished;          /* 1: a finite source is exhausted and nothing is held */
    uint64_t queue_delivered[128];
    uint64_t queue_transmitted[128];
};

/* All that is seen from outside. It may lie in a segment of its own, whose
 * header comes first. Registers are read and written through rl_sim_read and
 * rl_sim_write; of the BAR only tails are here, to be written directly. */
struct rl_sim_card {
    uint8_t header[4096];
    struct rl_sim_mailbox mailbox;
    struct rl_sim_wire wire;
    uint64_t fault_count;
    uint64_t fault_next; /* entries ever made: the last is (fault_next - 1) % RL_SIM_FAULTS */
    uint64_t fault_kinds[15];
    uint64_t fault_line[3];
    struct rl_sim_fault faults[64];
    uint32_t tails[32768];
};

struct rl_sim_config {
    struct rl_sim_card *card; /* zeroed, or NULL: the model has its own */
    uint8_t mac[6];           /* in the EEPROM */
    uint8_t left_running;     /* 1: as a previous owner left it; 0: after power-on */
    uint8_t padding;
};

/* Frames that arrive: `order` holds indices of frames, taken again from its
 * first until `total` have come (0: for ever). A frame is `lengths[i]` bytes
 * without CRC at `data + offsets[i]`. All is copied. */
struct rl_sim_source {
    const uint8_t *data;
    uint64_t data_bytes;
    const uint64_t *offsets;
    const uint32_t *lengths;
    uint32_t frames;
    uint32_t order_length;
    const uint32_t *order;
    uint64_t total;
    double rate; /* frames a second; 0: closed loop, the wire waits for room */
};

struct rl_sim;

/* NULL when memory lacks. */
struct rl_sim *rl_sim_new(const struct rl_sim_config *config);
void rl_sim_free(struct rl_sim *sim);
struct rl_sim_card *rl_sim_card(struct rl_sim *sim);

/* Let the card reach `size` bytes at `address` as bus addresses from `bus`.
 * Up to 8 windows; 0, or -1 when there are no more. */
int32_t rl_sim_map(struct rl_sim *sim, uint64_t bus, void *address, uint64_t size);

/* What the PCI command register switches; off, the card does no DMA at all. */
void rl_sim_bus_master(struct rl_sim *sim, uint32_t on);

uint32_t rl_sim_read(struct rl_sim *sim, uint32_t reg);
void rl_sim_write(struct rl_sim *sim, uint32_t reg, uint32_t value);

/* Where a tail register lies, for direct writing. */
volatile uint32_t *rl_sim_tail(struct rl_sim *sim, uint32_t reg);

/* 0; -1 when memory lacks; -2 when the source is not sound. */
int32_t rl_sim_source(struct rl_sim *sim, const struct rl_sim_source *source);

/* Record what is transmitted to `fd` as pcap (nanoseconds, Ethernet), which
 * stays the caller's. -1 when memory lacks. */
int32_t rl_sim_record(struct rl_sim *sim, int32_t fd);

/* Write what is buffered of the record. 0 or the errno that ended it. */
int32_t rl_sim_record_flush(struct rl_sim *sim);

/* Let the card work for a while: up to 64 frames per receive queue and 64
 * descriptors per transmit queue. `sim` is a struct rl_sim; returns the frames and
 * descriptors that it moved. */
uint32_t rl_sim_step(void *sim);

/* What steps have counted goes to the card's statistics and the wire's counters.
 * Register accesses do this, and steps: those that found nothing to do and
 * every 16th of the others. */
void rl_sim_publish(struct rl_sim *sim);

/* Answer the mailbox, if there is a request. Returns 1 when there was. */
uint32_t rl_sim_serve(struct rl_sim *sim);

/* Steps and serves until `nanoseconds` have passed, sleeping when idle.
 * Returns what it moved. */
uint64_t rl_sim_run(struct rl_sim *sim, uint64_t nanoseconds);

/* The driver's side of the mailbox: 0, or -1 when no answer came in time. */
int32_t rl_sim_request(struct rl_sim_card *card, uint32_t operation, uint32_t reg, uint32_t value,
                       uint32_t *result, uint64_t nanoseconds);

/* A word for a kind of fault, "dma" for instance. */
const char *rl_sim_fault_name(uint32_t kind);

/* The Toeplitz hash of `length` <= 36 bytes under a 40-byte key. */
uint32_t rl_sim_toeplitz(const uint8_t *key, const uint8_t *input, uint32_t length);
#endif
