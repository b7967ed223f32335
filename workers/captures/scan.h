/* Reads packets of a capture in C. Plain declarations: the C compiler and cffi both read this file.
 *
 * It takes packets as most captures have them and leaves all others, and every error, to the
 * readers in Python (pcap.py, pcapng.py), which go on where it stopped. So both give the same
 * frames. */
#ifndef RINGLINE_WORKERS_SCAN_H
#define RINGLINE_WORKERS_SCAN_H
#include "../../shm/types.h"

/* Why rl_scan stopped. */
#define RL_SCAN_FULL 0 /* there is no room for another packet */
#define RL_SCAN_MORE 1 /* the window ends before or inside the next packet */
#define RL_SCAN_ODD 2  /* Python must read the next packet */
#define RL_SCAN_STOP 3 /* the next packet begins at `stop` or behind it */
#define RL_SCAN_TICK 4 /* the plugin's tick is due before the next packet */

#define RL_SCAN_UNITS 31          /* units of packet memory of a buffer: 69,440 bytes */
#define RL_SCAN_FRAME_MAX 65535   /* bytes of a longer frame that are copied */
#define RL_SCAN_PACKET_MAX 262144 /* FRAME_BYTES_MAX of capture_table.py */
#define RL_SCAN_BLOCK_MAX 16777216

/* What rl_probe needs for an answer: this many packets or blocks behind each other. */
#define RL_PROBE_CHAIN 24

/* An interface of a section of pcapng. */
struct rl_scan_interface {
    uint64_t units; /* time stamps are in units of 1 / units seconds; 0: leave it to Python */
    int64_t offset; /* nanoseconds to add to every time */
};

struct rl_scan {
    const uint8_t *data; /* the window: bytes of the capture */
    uint64_t size;       /* bytes in it */
    uint64_t at;         /* where the next packet or block begins in it */
    uint64_t stop;       /* packets from here on belong to another task */
    uint32_t pcapng;     /* 1: pcapng; 0: pcap */
    uint32_t swap;       /* 1: the numbers have the other byte order */
    uint32_t usual;      /* 0: leave every packet to Python */
    uint32_t interfaces; /* of pcapng: how many the section has */
    const struct rl_scan_interface *interface;
    uint64_t unit;    /* of pcap: nanoseconds of one unit of the fraction of a second */
    uint64_t packets; /* how many packets were read */
    uint64_t bytes;   /* of them on the wire */
    uint64_t cut;     /* of them: longer on the wire than in the file */
    uint64_t backward;
    uint64_t clipped; /* longer than RL_SCAN_FRAME_MAX */
    int64_t first;    /* the first time of a packet, if `begun`; 0 is no time */
    int64_t last;     /* the time of the packet before that has one, if `timed` */
    uint32_t begun;
    uint32_t timed;
    uint32_t ticks;   /* not 0: stop with RL_SCAN_TICK (class Ticks in trials/harness.py) */
    uint32_t ticking; /* tick_at is valid */
    int64_t tick_at;
    uint8_t *memory; /* packet memory: buffer i begins at i * RL_SCAN_UNITS * RL_BUFFER_STRIDE */
    uint8_t *own;    /* a window in packet memory, whose frames are not copied; or NULL */
};

/* Write the references and times of up to `room` packets, and copy them into the buffers 0, 1, ...,
 * unless the window is `own`. Returns their number; `why` is RL_SCAN_*. */
uint32_t rl_scan(struct rl_scan *scan, struct rl_reference *packets, int64_t *times, uint32_t room,
                 uint32_t *why);

/* Whether a tick is due before a packet with this time. */
int rl_scan_tick_is_due(struct rl_scan *scan, int64_t time);

/* The reference of a packet in the buffer `number`. */
void rl_scan_reference(struct rl_reference *packet, uint32_t number, uint64_t captured,
                       uint64_t original);

/* Where in the window a packet of pcap or a block of pcapng probably begins, from `scan->at` on:
 * a chain of RL_PROBE_CHAIN of them is consistent, or of fewer that end with the file (`whole`).
 * `seconds` is the time of some packet of the file. Returns -1 when there is none. */
int64_t rl_probe(const struct rl_scan *scan, int whole, uint32_t seconds);
#endif
