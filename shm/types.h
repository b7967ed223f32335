/* The data formats that several processes share. The C compiler and cffi read this file, so each
 * field is declared once, and only plain declarations are allowed. cffi skips every line that
 * begins with '#' except `#define NAME integer`.
 *
 * All fields are little-endian and naturally aligned. Padding is declared, so the layout hash in
 * each segment header covers every byte
 * (tests/shm/test_layout.py: test_nothing_is_padded_by_the_compiler). */
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

/* Packet memory consists of units of RL_BUFFER_STRIDE bytes. A buffer is one unit, or some
 * consecutive ones if a port receives jumbo frames; its number is that of its first unit, so it
 * begins at the number times RL_BUFFER_STRIDE. A buffer is RL_BUFFER_HEADROOM bytes and then bytes
 * that the card may write: RL_BUFFER_DATA in one unit. The stride is 35 cache lines: with a power
 * of two all buffers would compete for the same cache sets (measured: 2048 costs 10 %, and twice
 * that with buffers in random order). */
#define RL_BUFFER_STRIDE 2240
#define RL_BUFFER_HEADROOM 192
#define RL_BUFFER_DATA 2048

/* Frame lengths in bytes without the CRC: the shortest that a card sends, and the longest without
 * jumbo frames, 1514 and a VLAN tag of 4. */
#define RL_FRAME_MIN 17
#define RL_FRAME_MAX 1518

/* A packet reference: 16 bytes that name one packet. `port` is the input port on the `in` ring
 * and the verdict on the `out` ring. */
struct rl_reference {
    uint32_t buffer; /* its number in packet memory */
    uint16_t offset; /* from the buffer's first byte to the frame's first byte */
    uint16_t length; /* of the frame in bytes, without CRC */
    uint32_t rss_hash;
    uint16_t vlan_tci;
    uint8_t port;
    uint8_t flags;
};

#define RL_FLAG_VLAN 0x01          /* vlan_tci is valid: the card removed the tag, or inserts it */
#define RL_FLAG_HASH 0x02          /* rss_hash is valid */
#define RL_FLAG_L3_OK 0x04         /* the card checked the IPv4 header checksum */
#define RL_FLAG_L4_OK 0x08         /* the card checked the TCP or UDP checksum */
#define RL_FLAG_CHECKSUM_BAD 0x10  /* one of these checksums was wrong */
#define RL_FLAG_BLANK 0x20         /* a granted buffer, not a received packet */
#define RL_FLAG_FIX_CHECKSUMS 0x40 /* write the checksums when the frame is sent */
#define RL_FLAG_WIRE_LENGTH 0x80   /* from a capture: rss_hash is its bytes on the wire */

#define RL_VERDICT_DROP 255  /* the plugin said: drop */
#define RL_VERDICT_ERROR 254 /* the plugin failed on this packet: drop, own counter */

/* RL_VERDICT_REASON + i: drop, for the reason with the number i that the plugin has named. Each
 * reason has its own counter. */
#define RL_VERDICT_REASON 128
#define RL_REASONS_MAX 32

/* The first RL_HEADER_BYTES of every segment, padded with zeros. `magic` is the first word and is
 * written last, with a release store: the stores to the other fields may not move behind it. So
 * a reader that sees `magic` sees the other fields
 * (tests/shm/test_segments.py: test_a_header_is_whole_when_its_magic_is_there). */
struct rl_segment_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t kind;
    uint64_t layout_hash;
    uint64_t size;      /* bytes, whole pages */
    uint64_t used;      /* bytes that the creator asked for, header included */
    uint32_t owner_pid; /* for messages only: an owner is alive while it holds the flock */
    uint32_t generation;
    char instance[64];
    char what[64];
    char pci[256]; /* PCI addresses, separated by blanks: stop their DMA before unlinking. One
                    * that begins with - is forgotten */
};
#define RL_SEGMENT_DESCRIPTORS 1
#define RL_SEGMENT_PACKETS 2
#define RL_SEGMENT_LANE 3
#define RL_SEGMENT_SLOT 4
#define RL_SEGMENT_RINGS 5
#define RL_SEGMENT_CARD 6
#define RL_SEGMENT_INTERFACE 7

/* A ring in shared memory (ring.h). The producer writes `producer` and `entries`, the consumer
 * writes `consumer`, both write `sleeping`. Each of the three words has its own cache line
 * (tests/shm/test_layout.py:
 * test_fields_written_by_different_processes_are_on_separate_cache_lines). */
struct rl_ring {
    uint32_t producer; /* references published since the start, modulo 2^32 */
    uint8_t producer_line[60];
    uint32_t consumer; /* references taken since the start, modulo 2^32 */
    uint8_t consumer_line[60];
    uint32_t sleeping; /* futex word (wait.h): 1 while the consumer sleeps */
    uint8_t sleeping_line[60];
    struct rl_reference entries[1024];
    uint8_t guard_line[64];
};

/* When the packets on `in` came, beside the ring since a reference is full (times.h). All times are
 * nanoseconds since 1970. The worker writes `unwanted`, the driver all other fields. */
struct rl_times {
    uint32_t unwanted; /* not 0: the plugin reads no times, and the driver may leave out `of` */
    uint8_t unwanted_line[60];
    uint32_t stamped; /* 1: a port has its own times (struct rl_port), for example of a capture */
    uint32_t engines; /* bit n: the card of port n computes checksums of frames that it sends */
    int64_t last;     /* if `stamped`: the last time of such a port */
    int64_t offset;   /* the clock of the driver is CLOCK_MONOTONIC plus this */
    uint8_t clock_line[40];
    int64_t of[1024]; /* of[i]: the time of the packet in in.entries[i]; undefined for a blank */
};

/* The segment `.rings.<queue>.<generation>`. */
struct rl_rings_segment {
    uint8_t header[4096];
    struct rl_ring in;  /* driver -> worker */
    struct rl_ring out; /* worker -> driver */
    struct rl_times times;
};

/* One end of a ring, in private memory: own index, cached index of the peer. */
struct rl_ring_end {
    struct rl_ring *ring;
    uint32_t own;
    uint32_t peer;
};

/* The counters of a worker in `.worker.<queue>`; only the worker writes them. */
struct rl_worker_counters {
    uint64_t packets; /* taken from `in`, without blanks */
    uint64_t bytes;
    uint64_t batches;
    uint64_t forwarded;      /* verdict: a port */
    uint64_t dropped;        /* verdict: drop, with or without a reason */
    uint64_t plugin_errors;  /* the plugin raised; the packet is dropped */
    uint64_t verdict_errors; /* verdict out of range; the packet is dropped */
    uint64_t tick_errors;    /* the plugin's tick raised */
    uint64_t created;        /* packets that the plugin created in blanks */
    uint64_t busy_ticks;     /* in passes that found packets */
    uint64_t idle_ticks;     /* in passes that found none, sleep included */
    uint64_t plugin_ticks;   /* inside the plugin, part of busy_ticks */
    uint64_t sleeps;
    uint64_t out_waits; /* how often `out` was full */
    uint64_t heartbeat; /* rl_clock() of the last pass */
};

/* An entry of a slot's directory: the name that a plugin gave, and the memory that it got. */
struct rl_slot_entry {
    char name[48];
    char type[56];    /* for state: dtype and shape as text */
    uint32_t kind;    /* RL_ENTRY_*; 0 = unused; written last, with a release store */
    uint32_t columns; /* table, counters: words per row; histogram: words */
    uint64_t offset;  /* bytes from the segment's first byte */
    uint64_t bytes;
};
#define RL_ENTRY_COUNTER 1
#define RL_ENTRY_GAUGE 2
#define RL_ENTRY_HISTOGRAM 3
#define RL_ENTRY_STATE 4
#define RL_ENTRY_TABLE 5
#define RL_ENTRY_REASON 6   /* the drop reason with the number `columns` - 1; it has no bytes */
#define RL_ENTRY_COUNTERS 7 /* counters by the value of one label, whose name is `type` */

/* The segment `.worker.<queue>`. It outlives every generation of its worker. */
struct rl_slot_segment {
    uint8_t header[4096];
    struct rl_worker_counters counters;
    uint8_t counters_lines[8];
    struct rl_slot_entry entries[128];
    uint8_t area[]; /* counters, histograms, tables and state of the plugin */
};

/* The counters of one queue of one port; only the lane writes them. `tx_packets`, `tx_bytes`,
 * `tx_bursts` and `tx_waits` count the queue as output, all others count it as input. */
struct rl_queue_counters {
    uint64_t rx_packets; /* received from descriptors */
    uint64_t rx_bytes;
    uint64_t rx_bursts;
    uint64_t tx_packets; /* completed by the card */
    uint64_t tx_bytes;
    uint64_t tx_bursts;
    uint64_t transmitted; /* packets received on this queue and completed on any port */
    uint64_t drop_plugin;
    uint64_t drop_plugin_error;
    uint64_t drop_bad_reference;
    uint64_t drop_worker_lost;
    uint64_t drop_no_worker;
    uint64_t drop_tx_down; /* the output port is stopped or its link is down */
    uint64_t drop_rx_error;
    uint64_t drop_tx_too_long; /* longer than what the output port sends */
    uint64_t drop_driver_lost;
    uint64_t drop_named[32]; /* by the verdict RL_VERDICT_REASON + i */
    uint64_t tx_waits;       /* how often the TX descriptor ring was full */
    uint64_t rx_waits;       /* how often `in` was full while the card may have had packets */
    uint64_t rx_starved;     /* how often no free buffer was left to repost */
};

/* Why references were refused, by cause; their sum is bad_reference. RL_REFUSED_* are the places
 * of the counters (frames.h). */
struct rl_refusals {
    uint64_t too_long;       /* the frame, with the VLAN tag that the card inserts */
    uint64_t too_short;      /* the frame */
    uint64_t outside_buffer; /* the frame ends behind its buffer */
    uint64_t not_held;       /* no such buffer, or the worker does not hold it */
    uint64_t no_port;        /* the verdict is no port, no drop and no error */
};
#define RL_REFUSED_TOO_LONG 0
#define RL_REFUSED_TOO_SHORT 1
#define RL_REFUSED_OUTSIDE_BUFFER 2
#define RL_REFUSED_NOT_HELD 3
#define RL_REFUSED_NO_PORT 4

/* The counters of one worker slot; only the lane writes them. */
struct rl_slot_counters {
    uint64_t pushed;        /* references put on `in`; carried ones count once */
    uint64_t returned;      /* references taken from `out` whose buffer the worker held */
    uint64_t lost;          /* freed because their worker or the driver died */
    uint64_t carried;       /* never popped, moved to the successor's `in` */
    uint64_t bad_reference; /* refused: another holder, a bad port, or a frame out of range */
    uint64_t ring_faults;   /* how often the worker became faulty (rl_slot_fault) */
    uint64_t wakeups;       /* futex calls made */
    uint64_t blanks_granted;
    uint64_t blanks_transmitted;
    uint64_t blanks_returned;
    uint64_t blanks_lost;
    uint64_t generation;
    uint64_t latency_ticks; /* sum over the samples */
    uint64_t latency[32];   /* samples, from receive to return; bucket b: < 2^b * 64 ns */
    struct rl_refusals refusals;
};

struct rl_lane_counters {
    uint64_t passes;
    uint64_t busy_ticks;  /* in passes that moved packets, without model_ticks */
    uint64_t idle_ticks;  /* in passes that moved none, sleep included, without model_ticks */
    uint64_t model_ticks; /* inside device models that run in the driver */
    uint64_t sleeps;
    uint64_t heartbeat; /* rl_clock() of the last pass */
};

/* A change of the books that the lane is about to make. `operation` is written last before the
 * change and becomes 0 after it (rl_intend in memory.h). If the driver was killed in between,
 * settle_driver (ledger.py) repeats the whole change: every listed buffer gets `word` in the
 * ledger, and each of the two counters (a byte offset in this segment; 0 = none) becomes its
 * `before` plus `count`.
 *
 * An intent covers these changes:
 *  - a batch received: its words, rx_packets and, if there is a worker, pushed
 *  - buffers freed by rl_release, as packets end: their words, the counter of the outcome
 *    (transmitted, drop_* or blanks_*), and one of tx_packets, returned or lost, if any
 *  - a blank granted: its word, blanks_granted and pushed
 *  - a frame received with an error: its word, rx_packets and drop_rx_error
 *
 * No intent covers these changes:
 *  - References accepted from `out`. The lane changes their words from WORKER to CARD_TX one by
 *    one. Then it adds them to `returned`: in rl_release, or by itself after tx_burst. After a
 *    kill in between, `pushed` is more than returned, lost and the words of this worker
 *    together. settle_driver adds the difference, at most one batch, to `returned` and counts
 *    the packets as driver_lost.
 *  - Buffers that change between FREE and CARD_RX. No counter depends on them; settle_driver frees
 *    both. So a frame in an RX descriptor ends uncounted if no intent lists it.
 *  - References moved to a successor. Their words change to the new generation, which no balance
 *    sees.
 *  - All other counters: bytes, bursts, waits, carried, bad_reference, refusals, ring_faults,
 *    wakeups, latency, ticks. No balance uses them, and settle_driver does not change them. After a
 *    kill, rx_bytes and rx_bursts may lack the last batch; tx_bytes may contain a burst that
 *    tx_packets does not. */
struct rl_intent {
    uint32_t operation; /* RL_INTENT_*; 0 = none */
    uint32_t count;
    uint32_t word;
    uint32_t padding;
    uint64_t counter[2];
    uint64_t before[2];
    uint32_t buffers[64];               /* the list of RL_INTENT_ASSIGN */
    struct rl_reference references[64]; /* the list of RL_INTENT_RECEIVE */
};
#define RL_INTENT_RECEIVE 1
#define RL_INTENT_ASSIGN 2

/* The balances, counted between two passes (balance.h). A residual is 0 when the books are
 * right. */
struct rl_balance {
    uint32_t sequence; /* odd while the balance is written */
    uint32_t complete; /* 1: counted with a full scan of the free list and all descriptor rings */
    uint64_t when;     /* rl_clock() */
    uint64_t free;     /* buffers; so are the next four */
    uint64_t unusable; /* never used: they straddle two physical pages */
    uint64_t card_rx[16];
    uint64_t card_tx[16];
    uint64_t worker[16];
    uint64_t in_flight[16];       /* packets per input port: with workers and on TX rings */
    int64_t packets_residual[16]; /* per input port: received - transmitted - drops - in flight */
    int64_t worker_residual[16];  /* pushed - returned - lost - held */
    int64_t descriptor_residual[16]; /* per port: posted descriptors - ledger */
    int64_t buffers_residual;
    int64_t blanks_residual;
    uint64_t scan_missing;    /* full scan: buffers found nowhere */
    uint64_t scan_duplicates; /* full scan: buffers found more than once */
};

/* Words of the ledger (ledger.h): who holds a buffer. RL_INPUT_BLANK is the input port of a blank,
 * and of a packet that a plugin created in one. */
#define RL_HOLDER_UNUSABLE 0u
#define RL_HOLDER_FREE 1u
#define RL_HOLDER_CARD_RX 2u /* posted for receiving; port in bits 7:0 */
#define RL_HOLDER_CARD_TX 3u /* posted for sending; input port in bits 7:0 */
#define RL_HOLDER_WORKER 4u
#define RL_INPUT_BLANK 255u

/* The segment `.lane.0`, which only the driver and the supervisor map. The ledger follows at
 * `ledger_offset`, one word per unit of packet memory. */
struct rl_lane_segment {
    uint8_t header[4096];
    uint32_t request; /* the supervisor increments it: the loop ends and Python reads messages */
    uint8_t request_line[60];
    uint64_t ledger_offset;
    uint64_t buffers; /* words of the ledger: units of packet memory */
    uint32_t units;   /* of a buffer: only the words whose number is a multiple of it count */
    uint8_t geometry_line[44];
    struct rl_lane_counters lane;
    uint8_t lane_line[16];
    struct rl_intent intent;
    struct rl_queue_counters queues[256]; /* [port * RL_QUEUES_MAX + queue] */
    struct rl_slot_counters slots[16];
    struct rl_balance balance;
};
#endif
