/* AF_XDP: the four rings of a socket (kernel header linux/if_xdp.h) as a port's queue. The
 * kernel maps the rings; all else is private memory of the driver. Plain declarations: C and
 * cffi read this. */
#ifndef RINGLINE_XDP_H
#define RINGLINE_XDP_H
#include "../port.h"

/* One ring between the driver and the kernel. Both indices run freely; `own` is the index that
 * the driver moves, and the kernel moves the other one. */
struct rl_xdp_ring {
    uint32_t *producer;
    uint32_t *consumer;
    uint32_t *flags; /* bit 0: the kernel waits for a system call */
    void *entries;   /* RX, TX: struct rl_xdp_descriptor; fill, completion: uint64_t addresses */
    uint32_t mask;   /* entries - 1; their number is a power of two */
    uint32_t own;
};

/* What the kernel calls a chunk: RL_XDP_HEADROOM bytes (XDP_PACKET_HEADROOM of linux/bpf.h), and
 * then what a card may write. A chunk begins RL_XDP_LEAD bytes before its buffer, so a card writes
 * where other cards do. With fewer than 2048 bytes, igb and ixgbe would cut long frames: their
 * registers SRRCTL count in KiB. The bytes before a buffer are written by nobody. RL_XDP_FIRST is
 * the address of the chunk of buffer 0, counted from the first byte of packet memory. */
#define RL_XDP_HEADROOM 256
#define RL_XDP_LEAD 64
#define RL_XDP_CHUNK 2304
#define RL_XDP_FIRST 4032

/* struct xdp_desc. Bits 47:0 of an address are the first byte of a chunk; bits 63:48 are the offset
 * of the frame in the chunk. */
struct rl_xdp_descriptor {
    uint64_t address;
    uint32_t length;
    uint32_t options;
};

/* One socket, bound to one queue of the interface. */
struct rl_xdp_queue {
    struct rl_xdp_ring rx;
    struct rl_xdp_ring tx;
    struct rl_xdp_ring fill;
    struct rl_xdp_ring completion;
    int fd;
    uint32_t sending; /* packets on the TX ring, in the kernel, or on the completion ring */
};

/* What the kernel holds, in `held` of each buffer: the use from bit 24, the queue from bit 16, and
 * the length of a frame to send. 0: nothing. */
#define RL_XDP_RECEIVING 0x1000000
#define RL_XDP_SENDING 0x2000000

struct rl_xdp {
    struct rl_port port;
    uint32_t *held;        /* one word per buffer */
    uint32_t busy_polling; /* 1: the kernel's receive code runs only inside our system calls */
    uint32_t hashing;      /* 1: rl_xdp_hash fills rss_hash */
    uint32_t completing;   /* 1: rl_complete writes the checksums of received frames */
    uint32_t *toeplitz;    /* 36 tables of 256 words, made by rl_xdp_hash_tables */
    struct rl_xdp_queue queues[16];
};

/* See struct rl_port. */
uint32_t rl_xdp_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n);
uint32_t rl_xdp_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n);
uint32_t rl_xdp_reclaim(struct rl_port *port, uint32_t queue);

/* Post `count` free buffers to each queue for receiving. Returns 1, or 0 without any change when
 * there are too few free buffers. */
int rl_xdp_post(struct rl_xdp *xdp, uint32_t count);

/* Return every buffer that the kernel holds to the free list. Call it when nothing arrives any
 * more. Packets that the kernel has not reported as sent are counted as dropped because the
 * output is down. */
void rl_xdp_return_all(struct rl_xdp *xdp);

/* The numbers of buffers that the kernel holds for receiving and for sending, counted buffer by
 * buffer. Adds one to seen[buffer] for each, unless `seen` is NULL. */
void rl_xdp_scan(const struct rl_xdp *xdp, uint32_t *receiving, uint32_t *sending, uint8_t *seen);

/* Toeplitz hash of receive-side scaling ("Scalable networking", Microsoft NDIS documentation):
 * addresses and ports of TCP and UDP over IPv4 and IPv6, else the addresses alone. Sets `hash` and
 * returns 1; returns 0 for other frames. At most two VLAN tags are skipped. */
int rl_xdp_hash(const uint32_t *tables, const uint8_t *frame, uint32_t length, uint32_t *hash);

/* Fill `tables` (36 x 256 words) for a key of 40 bytes. */
void rl_xdp_hash_tables(const uint8_t *key, uint32_t *tables);

/* System calls that Python does not have. They return a value of at least 0, or -errno. */
int rl_xdp_bpf(int command, void *attributes, uint32_t bytes);
int rl_xdp_bind(int fd, uint32_t interface, uint32_t queue, uint32_t flags, int shared_with);
int rl_xdp_wake_tx(int fd);
#endif
