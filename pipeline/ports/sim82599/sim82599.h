/* A simulated Intel 82599 with a wire: a device model at the level of registers
 * and descriptors. It is written from the documented behaviour of the card, with its
 * own register constants, and shares no code with the driver that it tests, nor with
 * the packet memory of that driver. Plain declarations: C and cffi read this file.
 *
 * Modelled
 *  - Reset (CTRL.RST and LRST clear themselves later; until then writes are faults),
 *    master disable (STATUS bit 19), EEPROM auto-read and DMA initialisation that
 *    take time after a reset, interrupt mask.
 *  - The card as a previous owner left it: running, interrupts unmasked, a receive
 *    ring at an address outside all windows, statistics not read, laser off.
 *  - Link: up only as a 10G serial link over SFI, with the laser on, after a restart; with
 *    `backplane`, negotiated (LMS 4 and above).
 *  - Interrupts by MSI-X: EICR, EICS, EIMS, EIMC and their extensions, EIAC, EIAM_EX, IVAR, GPIE,
 *    and the interval of EITR; link changes.
 *  - EEPROM reads by EERD: a valid checksum, and zeros.
 *  - Statistics that a read clears, that survive a reset, and that count queues
 *    as RQSMR and TQSM map them: QPRC, QPRDC, QBRC, QPTC, QBTC, MPC, GPRC,
 *    GORC, GPTC, GOTC, TPR, TOR, TPT, BPRC, MPRC, PRC*, PTC*, RUC, ROC.
 *  - 128 receive and 64 transmit queues: ENABLE handshakes, checks of base, length
 *    and SRRCTL; heads and tails; the card owns the descriptors between them.
 *  - RXEN may change only while the security path is stopped, or receiving hangs if frames come;
 *    TXPBSIZE and MTQC only while the arbiter is disabled; DMATXCTL.TE comes before any transmit
 *    queue.
 *  - Receive: MAC, multicast, broadcast, VLAN filters, promiscuous modes; RSS by
 *    MRQC, RSSRK, RETA, RXCSUM.PCSD; checksum status; CRC strip; VLAN strip;
 *    buffers of SRRCTL's size, longer frames in several; runts and oversize;
 *    DROP_EN, and without it a packet buffer of RXPBSIZE that fills.
 *  - Transmit: advanced data and context descriptors, frames of several
 *    descriptors, PAYLEN, padding, VLAN insertion, RS and WTHRESH; IP, TCP, UDP and SCTP
 *    checksums, TCP segmentation.
 *  - Loopback in the MAC, and a link that is forced up.
 *  - DMA through the mapped windows. Any other address is a fault that stops the
 *    queue, as an IOMMU would.
 *
 * Not modelled
 *  - Time. An operation that takes time on the card is finished here after a number of
 *    reads of its status register, or of steps, so that a missing wait is always found.
 *    Line rate: a wire without a rate is as fast as the model.
 *  - INTx and MSI, DCA, flow control, DCB, virtualisation (pools, mailbox), RSC,
 *    header split, flow director and other queue filters, IPsec, MACsec,
 *    time stamps, UDP segmentation, tunnels, legacy descriptors, head write-back,
 *    double VLAN, loopback outside the MAC, SFP+ modules, PHY and firmware, frames with CRC errors.
 * Their registers keep what is written, or a fault names the request.
 *  - Transmitted bytes are read only for a recording, so transmit statistics do not
 *    distinguish multicast and broadcast.
 *
 * Requests that the card would not carry out are refused and recorded as faults: a
 * kind, a sentence, a count. A correct driver causes none. What the card does not mind, but a
 * driver of ringline should leave alone, is a fault too, unless the driver is `foreign`; it
 * changes nothing else. */
#ifndef RINGLINE_SIM82599_H
#define RINGLINE_SIM82599_H
#include <stddef.h>
#include <stdint.h>

#define RL_SIM_BAR_BYTES 0x20000
#define RL_SIM_FAULTS 64
#define RL_SIM_STAMPED_QUEUES 16
#define RL_SIM_STAMPED_DESCRIPTORS 4096

/* Kinds of fault. */
#define RL_SIM_FAULT_DMA 0          /* an address outside every window */
#define RL_SIM_FAULT_REGISTER 1     /* no such register, or it is read-only */
#define RL_SIM_FAULT_RESET 2        /* written while the reset is under way */
#define RL_SIM_FAULT_INITIALISING 3 /* written before EEPROM or DMA were ready */
#define RL_SIM_FAULT_MASTER 4       /* reset while DMA may be under way */
#define RL_SIM_FAULT_INTERRUPT 5    /* interrupts unmasked, but no handler */
#define RL_SIM_FAULT_QUEUE 6        /* a queue with a wrong set-up, or used while disabled */
#define RL_SIM_FAULT_TAIL 7         /* a tail out of range, or written before ENABLE reads 1 */
#define RL_SIM_FAULT_RECEIVE 8      /* wrong receive set-up */
#define RL_SIM_FAULT_RECEIVE_HANG 9 /* RXEN changed while the security path ran */
#define RL_SIM_FAULT_RX_DESCRIPTOR 10
#define RL_SIM_FAULT_TRANSMIT 11 /* wrong transmit set-up */
#define RL_SIM_FAULT_ARBITER 12  /* TXPBSIZE or MTQC written while the arbiter ran */
#define RL_SIM_FAULT_TX_DESCRIPTOR 13
#define RL_SIM_FAULT_UNMODELLED 14 /* the card supports it, this model does not */
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
    uint32_t request; /* number of the request; the driver sets it last */
    uint32_t operation;
    uint32_t reg;
    uint32_t value;
    uint8_t request_line[48];
    uint32_t response; /* number of the request that `result` answers */
    uint32_t result;
    uint8_t response_line[56];
};
#define RL_SIM_READ 1
#define RL_SIM_WRITE 2
#define RL_SIM_BUS_MASTER 3

/* Counters of the wire, in frames and bytes without CRC. Between two steps always
 * offered = delivered + the sum of all drops + held. */
struct rl_sim_wire {
    uint64_t offered;
    uint64_t offered_bytes;
    uint64_t delivered; /* written to packet memory completely */
    uint64_t delivered_bytes;
    uint64_t held;                  /* in the card's packet buffer */
    uint64_t dropped_filtered;      /* no filter accepts them */
    uint64_t dropped_oversize;      /* ROC */
    uint64_t dropped_undersize;     /* RUC */
    uint64_t dropped_no_descriptor; /* QPRDC */
    uint64_t dropped_no_space;      /* MPC: the packet buffer is full */
    uint64_t dropped_disabled;      /* RXEN or the queue is off */
    uint64_t dropped_dma;
    uint64_t lost; /* transmitted to a live wire whose other end took none */
    uint64_t transmitted;
    uint64_t transmitted_bytes; /* padding and inserted tags included */
    uint64_t refused;           /* packets in TX descriptors that the card does not send */
    uint64_t recorded;          /* transmitted frames written to the record, or buffered */
    uint64_t record_error;      /* errno that ended the recording */
    uint64_t finished;          /* 1: a finite source is exhausted and nothing is held */
    uint64_t queue_delivered[128];
    uint64_t queue_transmitted[128];
};

/* The part of the model that others read: it may lie in a segment of its own, which
 * begins with the segment's header. Registers are accessed with rl_sim_read and
 * rl_sim_write; only tails are here, where the driver writes them directly. */
struct rl_sim_card {
    uint8_t header[4096];
    struct rl_sim_mailbox mailbox;
    struct rl_sim_wire wire;
    uint64_t fault_count;
    uint64_t fault_next; /* entries ever made; the last one is (fault_next - 1) % RL_SIM_FAULTS */
    uint64_t fault_kinds[15];
    uint64_t fault_line[3];
    struct rl_sim_fault faults[64];
    uint32_t tails[32768];
    /* 1: the frames that arrive have time stamps of their own, in nanoseconds since 1970. The
     * stamp of a received frame is in `stamps` at the queue and the descriptor of its begin. The
     * model writes it before it writes the descriptor back. Queues from 16 on have none. */
    uint64_t stamped;
    int64_t stamps[16][4096];
};

/* Defects that a card can have, so that drivers can be tried on it; a set of bits. */
#define RL_SIM_BROKEN_EEPROM 1 /* the checksum of its EEPROM is wrong */
#define RL_SIM_BROKEN_LINK 2   /* its link never comes up */
#define RL_SIM_BROKEN_STOP 4   /* a receive queue that is enabled stays so until a reset */

struct rl_sim_config {
    struct rl_sim_card *card; /* zeroed memory; NULL: the model allocates it */
    uint8_t mac[6];           /* in RAL and RAH, once a reset is over */
    uint8_t left_running;     /* 1: running, as a previous owner left it; 0: powered on */
    /* 1: the driver is not one of ringline: faults are only what the card refuses, and not what a
     * driver of ringline should leave alone although the card does not mind. */
    uint8_t foreign;
    uint8_t backplane; /* 1: the link is on a backplane, and negotiated; 0: SFI, with a laser */
    uint8_t broken;    /* RL_SIM_BROKEN_*: 0 for a card without a defect */
    uint8_t padding[6];
};

/* Frames that arrive: `order` holds indices of frames and is repeated until `total`
 * frames have arrived (0: without end). Frame i is `lengths[i]` bytes without CRC at
 * `data + offsets[i]`. The model copies everything.
 *
 * Frame order[i] has the time stamp stamps[i] and, with a pace, arrives due[i] / pace nanoseconds
 * after the wire has begun. In the n-th repetition both are n * period nanoseconds later. */
struct rl_sim_source {
    const uint8_t *data;
    uint64_t data_bytes;
    const uint64_t *offsets;
    const uint32_t *lengths;
    uint32_t frames;
    uint32_t order_length;
    const uint32_t *order;
    uint64_t total;
    double rate;           /* frames per second; 0: closed loop, the wire waits for room */
    const int64_t *stamps; /* nanoseconds since 1970; NULL: none */
    const uint64_t *due;   /* nanoseconds, never decreasing; NULL: no pace */
    double pace;           /* above 0 if there is `due`: how many times faster */
    uint64_t period;       /* nanoseconds */
    /* NULL, or gives the frames that come after these: then these are sent once, and `total` 0
     * means that they may be followed by others without end. It is called in a step, with
     * `context`, and calls rl_sim_continue when there are more. */
    void (*more)(void *context);
    void *context;
};

/* How long frames were under way, from the moment when they are due on an open-loop wire until the
 * card takes their packet from a transmit descriptor: frames[i] counts those that took at least
 * rl_sim_transit_begin(i) nanoseconds, and less than rl_sim_transit_begin(i + 1). */
#define RL_SIM_TRANSIT_BUCKETS 1024
struct rl_sim_transits {
    uint64_t frames[1024];
};

struct rl_sim;

/* NULL when out of memory. */
struct rl_sim *rl_sim_new(const struct rl_sim_config *config);
void rl_sim_free(struct rl_sim *sim);
struct rl_sim_card *rl_sim_card(struct rl_sim *sim);

/* Map bus addresses from `bus` on to `size` bytes at `address`, for DMA. Returns 0, -1 when out of
 * memory, or -2 when they are none or mapped already. */
int32_t rl_sim_map(struct rl_sim *sim, uint64_t bus, void *address, uint64_t size);

/* End what is mapped in this range. A queue whose ring was there stops when it is used again.
 * Returns 0, or -1 when out of memory. */
int32_t rl_sim_unmap(struct rl_sim *sim, uint64_t bus, uint64_t size);

/* Write 1 to the eventfd `fd` for each message of an MSI-X vector below 64; -1: do nothing. */
void rl_sim_vector(struct rl_sim *sim, uint32_t vector, int32_t fd);

/* Frames come from `fd` and go there, in place of a source: a TAP, or a datagram socket that sends
 * to the struct sockaddr `peer`; it does not block. The caller keeps ownership of `fd`. Returns 0,
 * -1 when out of memory, -2 when `peer` is too long. */
int32_t rl_sim_live(struct rl_sim *sim, int32_t fd, const void *peer, uint32_t peer_bytes);

/* Nanoseconds after which the card has something to do although nothing happens; UINT64_MAX:
 * nothing. */
uint64_t rl_sim_due(const struct rl_sim *sim);

/* Whether a frame of the live wire waits for a descriptor. */
uint32_t rl_sim_is_waiting(const struct rl_sim *sim);

/* Set the card to the state after power-on, as a function level reset does. */
void rl_sim_function_reset(struct rl_sim *sim);

/* Set the bus master bit of the PCI command register; without it the card does no DMA. */
void rl_sim_bus_master(struct rl_sim *sim, uint32_t on);

uint32_t rl_sim_read(struct rl_sim *sim, uint32_t reg);
void rl_sim_write(struct rl_sim *sim, uint32_t reg, uint32_t value);

/* Address of the tail register `reg`, for direct writes; NULL when it is not a tail. */
volatile uint32_t *rl_sim_tail(struct rl_sim *sim, uint32_t reg);

/* Returns 0, -1 when out of memory, -2 when the source is inconsistent. */
int32_t rl_sim_source(struct rl_sim *sim, const struct rl_sim_source *source);

/* For `more`: the frames that come next. Only frames, `order`, `stamps` and `due` are used; `due`
 * still counts from the begin of the wire. Returns 0, -1 when out of memory, -2 when the source is
 * inconsistent. */
int32_t rl_sim_continue(struct rl_sim *sim, const struct rl_sim_source *source);

/* Record transmitted frames to `fd` as pcap (nanoseconds, Ethernet). The caller keeps
 * ownership of `fd`. Returns 0, or -1 when out of memory. */
int32_t rl_sim_record(struct rl_sim *sim, int32_t fd);

/* Write the buffered part of the record. Returns 0, or the errno that ended it. */
int32_t rl_sim_record_flush(struct rl_sim *sim);

/* From now on, add to `transits` how long each frame was under way, if its packet leaves from the
 * buffer in which it arrived; with NULL no longer. Call it after the last rl_sim_map. Returns 0, or
 * -1 when out of memory. */
int32_t rl_sim_measure_transits(struct rl_sim *sim, struct rl_sim_transits *transits);

/* The shortest time in a bucket, in nanoseconds: 32 buckets for each power of two from 32 on. */
uint64_t rl_sim_transit_begin(uint32_t bucket);

/* Let the card work for a while. A closed-loop wire delivers at most 64 frames times
 * the number of receive queues, an open-loop wire (with a rate or a pace) the frames that are due,
 * at most 4096 and those held before; each transmit queue takes at most 128 descriptors. `sim` is a
 * struct rl_sim. Returns the number of frames and descriptors moved. */
uint32_t rl_sim_step(void *sim);

/* Add the counts of recent steps to the statistics of the card and of the wire. Called
 * by register accesses, by the first step that moves nothing, and by every 16th step
 * that moves something. */
void rl_sim_publish(struct rl_sim *sim);

/* Answer a request in the mailbox. Returns 1, or 0 when there is none. */
uint32_t rl_sim_serve(struct rl_sim *sim);

/* Step and serve for `nanoseconds`, sleeping when idle. Returns the number of frames
 * and descriptors moved and of requests answered. */
uint64_t rl_sim_run(struct rl_sim *sim, uint64_t nanoseconds);

/* The driver's side of the mailbox: send a request and wait at most `nanoseconds`.
 * Returns 0, or -1 when no answer came in time. */
int32_t rl_sim_request(struct rl_sim_card *card, uint32_t operation, uint32_t reg, uint32_t value,
                       uint32_t *result, uint64_t nanoseconds);

/* Name of a kind of fault, for instance "dma". */
const char *rl_sim_fault_name(uint32_t kind);

/* The Toeplitz hash of `length` <= 36 bytes with a key of 40 bytes. */
uint32_t rl_sim_toeplitz(const uint8_t *key, const uint8_t *input, uint32_t length);
#endif
