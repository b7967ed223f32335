/* The formats that several processes share. Plain declarations only: the C
 * compiler and cffi read this same file, so a field is declared in one place.
 *
 * Lines that begin with '#' other than `#define NAME integer` are for C alone.
 * Everything here is little-endian and naturally aligned; padding is spelled
 * out so that the layout hash in every segment header means something. */
#ifndef RINGLINE_SHM_TYPES_H
#define RINGLINE_SHM_TYPES_H
#include <stddef.h>
#include <stdint.h>

#define RL_LAYOUT_VERSION 1
#define RL_HEADER_BYTES 4096
#define RL_RING_CAPACITY 1024
#define RL_BATCH_MAX 64
#define RL_PORTS_MAX 16
#define RL_QUEUES_MAX 16
#define RL_SLOT_ENTRIES 128
#define RL_LATENCY_BUCKETS 32

/* Packet memory: a buffer is `headroom` bytes and then what the card may
 * write. 2240 = 35 cache lines: a power of two would make all buffers compete
 * for the same cache sets (measured: 2048 costs 10 %, twice once shuffled). */
#define RL_BUFFER_STRIDE 2240
#define RL_BUFFER_HEADROOM 192
#define RL_BUFFER_DATA 2048

/* The shortest frame that a card accepts for sending, the longest that it
 * receives with jumbo frames off: 1518 and one VLAN tag, without the CRC. */
#define RL_FRAME_MIN 17
#define RL_FRAME_MAX 1518

/* A packet reference: 16 bytes that name one packet. `port` is the input port
 * on the way to a worker and the verdict on the way back. */
struct rl_reference {
    uint32_t buffer;
    uint16_t offset; /* of the frame's first byte from the buffer's first byte */
    uint16_t length; /* of the frame in bytes, without CRC */
    uint32_t rss_hash;
    uint16_t vlan_tci;
    uint8_t port;
    uint8_t flags;
};

#define RL_FLAG_VLAN 0x01         /* vlan_tci is valid: stripped, or to insert */
#define RL_FLAG_HASH 0x02         /* rss_hash is valid */
#define RL_FLAG_L3_OK 0x04        /* the card checked the IPv4 header checksum */
#define RL_FLAG_L4_OK 0x08        /* the card checked the TCP or UDP checksum */
#define RL_FLAG_CHECKSUM_BAD 0x10 /* one of them was wrong */
#define RL_FLAG_BLANK 0x20        /* a granted buffer, not a received packet */

#define RL_VERDICT_DROP 255  /* the plugin said: drop */
#define RL_VERDICT_ERROR 254 /* the plugin failed on this packet: drop, counted apart */

/* First in every segment, RL_HEADER_BYTES long with its padding. `magic` is
 * written last, with release order: whoever sees it sees the rest. */
struct rl_segment_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t kind;
    uint64_t layout_hash;
    uint64_t size;
    uint64_t used;      /* bytes asked for, the header included; `size` is in whole pages */
    uint32_t owner_pid; /* for messages only: alive means holds the flock */
    uint32_t generation;
    char instance[64];
    char what[64];
    char pci[256]; /* addresses whose DMA must stop first, separated by blanks */
};
#define RL_SEGMENT_DESCRIPTORS 1
#define RL_SEGMENT_PACKETS 2
#define RL_SEGMENT_LANE 3
#define RL_SEGMENT_SLOT 4
#define RL_SEGMENT_RINGS 5
#define RL_SEGMENT_CARD 6

/* A ring in shared memory; see ring.h for who may write what. */
struct rl_ring {
    uint32_t producer; /* free-running count of references published */
    uint8_t producer_line[60];
    uint32_t consumer; /* free-running count of references taken */
    uint8_t consumer_line[60];
    uint32_t sleeping; /* futex word: 1 while the consumer sleeps */
    uint8_t sleeping_line[60];
    struct rl_reference entries[1024];
    uint8_t guard_line[64];
};

/* The segment `.rings.<queue>.<generation>`. */
struct rl_rings_segment {
    uint8_t header[4096];
    struct rl_ring in;  /* driver -> worker */
    struct rl_ring out; /* worker -> driver */
};

/* One side of a ring, in private memory: own index, cached peer index. */
struct rl_ring_end {
    struct rl_ring *ring;
    uint32_t own;
    uint32_t peer;
};

/* What a worker counts; only the worker writes it, in `.worker.<queue>`. */
struct rl_worker_counters {
    uint64_t packets; /* taken from `in`, blanks not counted */
    uint64_t bytes;
    uint64_t batches;
    uint64_t forwarded;      /* verdict: a port */
    uint64_t dropped;        /* verdict: drop */
    uint64_t plugin_errors;  /* the plugin raised; the packet is dropped */
    uint64_t verdict_errors; /* verdict out of range; the packet is dropped */
    uint64_t created;        /* packets made in blank buffers */
    uint64_t busy_ticks;     /* passes that found packets */
    uint64_t idle_ticks;     /* passes that found none, sleep included */
    uint64_t plugin_ticks;   /* inside the plugin, part of busy_ticks */
    uint64_t sleeps;
    uint64_t out_waits; /* times `out` was full */
    uint64_t heartbeat; /* rl_clock() of the last pass */
};

/* An entry of a slot's directory: what a plugin named, and where it is. */
struct rl_slot_entry {
    char name[48];
    char type[56];    /* for state: dtype and shape as text */
    uint32_t kind;    /* RL_ENTRY_*; 0 = unused; written last */
    uint32_t columns; /* table: values per row; histogram: buckets */
    uint64_t offset;  /* from the segment's first byte */
    uint64_t bytes;
};
#define RL_ENTRY_COUNTER 1
#define RL_ENTRY_GAUGE 2
#define RL_ENTRY_HISTOGRAM 3
#define RL_ENTRY_STATE 4
#define RL_ENTRY_TABLE 5

/* The segment `.worker.<queue>`: outlives every generation of its worker. */
struct rl_slot_segment {
    uint8_t header[4096];
    struct rl_worker_counters counters;
    uint8_t counters_lines[16];
    struct rl_slot_entry entries[128];
    uint8_t area[]; /* counters, histograms, tables and state of the plugin */
};

/* Per port and queue, written by the lane alone. `rx_*` and `drop_*` belong to
 * the queue as input, `tx_*` to it as output. */
struct rl_queue_counters {
    uint64_t rx_packets; /* received from descriptors */
    uint64_t rx_bytes;
    uint64_t rx_bursts;
    uint64_t tx_packets; /* completed by the card */
    uint64_t tx_bytes;
    uint64_t tx_bursts;
    uint64_t transmitted; /* packets received here and completed on any port */
    uint64_t drop_plugin;
    uint64_t drop_plugin_error;
    uint64_t drop_bad_reference;
    uint64_t drop_worker_lost;
    uint64_t drop_no_worker;
    uint64_t drop_tx_down; /* the output port's link is down or it is stopped */
    uint64_t drop_rx_error;
    uint64_t drop_driver_lost;
    uint64_t tx_waits;   /* times the TX descriptor ring was full */
    uint64_t rx_waits;   /* times `in` was full while the card may have had packets */
    uint64_t rx_starved; /* times no free buffer was left to repost */
};

/* Per worker slot, written by the lane alone. */
struct rl_slot_counters {
    uint64_t pushed;        /* references put on `in`, carried ones once */
    uint64_t returned;      /* references accepted from `out` */
    uint64_t lost;          /* settled as lost with a dead worker */
    uint64_t carried;       /* handed unpopped to a successor */
    uint64_t bad_reference; /* refused: not this worker's, or out of range */
    uint64_t ring_faults;   /* an index out of range was seen */
    uint64_t wakeups;       /* futex calls made */
    uint64_t blanks_granted;
    uint64_t blanks_transmitted;
    uint64_t blanks_returned;
    uint64_t blanks_lost;
    uint64_t generation;
    uint64_t latency_ticks; /* sum over the samples */
    uint64_t latency[32];   /* sampled, driver in to driver out; bucket b: < 2^b * 64 ns */
};

struct rl_lane_counters {
    uint64_t passes;
    uint64_t busy_ticks;  /* passes that moved packets, without the models' part */
    uint64_t idle_ticks;  /* passes that moved none, sleep included, models not */
    uint64_t model_ticks; /* inside in-process device models */
    uint64_t sleeps;
    uint64_t heartbeat;
};

/* What the lane is about to do with a batch of one kind. Written before the
 * first effect and cleared after the last, so that a killed driver leaves books
 * from which the truth can be told by doing the whole again: every buffer
 * listed gets `word` in the ledger, and each counter named (a byte offset in
 * this segment; 0 = none) becomes its `before` plus `count`. */
struct rl_intent {
    uint32_t operation; /* RL_INTENT_*; 0 = none */
    uint32_t count;
    uint32_t word;
    uint32_t padding;
    uint64_t counter[2];
    uint64_t before[2];
    uint32_t buffers[64];               /* of RL_INTENT_ASSIGN */
    struct rl_reference references[64]; /* of RL_INTENT_RECEIVE: the buffers are in them */
};
#define RL_INTENT_RECEIVE 1
#define RL_INTENT_ASSIGN 2

/* The books as counted between two batches; `sequence` is odd while written. */
struct rl_balance {
    uint32_t sequence;
    uint32_t complete; /* 1 when a full scan of every ring and list was part of it */
    uint64_t when;     /* rl_clock() */
    uint64_t free;
    uint64_t unusable; /* never handed out: straddle a page of a physical device */
    uint64_t card_rx[16];
    uint64_t card_tx[16];
    uint64_t worker[16];
    uint64_t in_flight[16];       /* per input port: with workers and on TX rings */
    int64_t packets_residual[16]; /* per input port: received - transmitted - drops - in flight */
    int64_t worker_residual[16];  /* pushed - returned - lost - held */
    int64_t descriptor_residual[16]; /* per port: posted descriptors - ledger */
    int64_t buffers_residual;
    int64_t blanks_residual;
    uint64_t scan_missing;    /* full scan: indices found nowhere */
    uint64_t scan_duplicates; /* full scan: indices found more than once */
};

/* Who holds a buffer, and the "input port" of a packet that a plugin made: what
 * the words of the ledger say (ledger.h). */
#define RL_HOLDER_UNUSABLE 0u
#define RL_HOLDER_FREE 1u
#define RL_HOLDER_CARD_RX 2u /* posted for receiving; port in bits 7:0 */
#define RL_HOLDER_CARD_TX 3u /* posted for sending; input port in bits 7:0 */
#define RL_HOLDER_WORKER 4u
#define RL_INPUT_BLANK 255u

/* The segment `.lane.<n>`: mapped by the driver and the supervisor only. The
 * ledger follows, one word per buffer, at `ledger_offset`. */
struct rl_lane_segment {
    uint8_t header[4096];
    uint32_t request; /* supervisor counts up: the loop returns to its control turn */
    uint8_t request_line[60];
    uint64_t ledger_offset;
    uint64_t buffers;
    uint8_t geometry_line[48];
    struct rl_lane_counters lane;
    uint8_t lane_line[16];
    struct rl_intent intent;
    struct rl_queue_counters queues[256]; /* [port * RL_QUEUES_MAX + queue] */
    struct rl_slot_counters slots[16];
    struct rl_balance balance;
};
#endif
