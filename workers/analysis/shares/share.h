/* Divides the packets of a capture into shares by flow. Plain declarations: the C compiler and cffi
 * both read this file. */
#ifndef RINGLINE_WORKERS_SHARE_H
#define RINGLINE_WORKERS_SHARE_H
#include "../../captures/scan.h"

/* Why rl_share_run returns: RL_SCAN_MORE, _ODD, _STOP, or one of these. */
#define RL_SHARE_FULL 32  /* share `full` has no room: write its chunk, then call again */
#define RL_SHARE_LARGE 33 /* a packet of share `full` has no room in a chunk: `sorted` has it */

/* Bytes of an enhanced packet block with a packet ID, beside those of the frame. */
#define RL_RECORD_BYTES 48
#define RL_RECORD_MAX 65584 /* with the longest frame */

/* The ID of a packet: the place of its range among all ranges, and its number in the range. */
#define RL_NUMBER_BITS 40

/* The chunk of one share: enhanced packet blocks of pcapng. */
struct rl_share {
    uint64_t bytes;
    int64_t first; /* the smallest time in it, and the largest */
    int64_t last;
    int64_t newest; /* the time of the packet that came last */
    uint32_t disordered;
    uint32_t padding;
};

struct rl_sharing {
    struct rl_scan scan;
    uint8_t *memory;  /* the chunk of share i begins at i * room */
    uint8_t *sorted;  /* room for one chunk, and for RL_RECORD_MAX */
    uint64_t *places; /* and for three words of each of its packets */
    struct rl_share *shares;
    uint64_t room;      /* of a chunk in bytes, a multiple of 4 */
    uint64_t range;     /* the place of the range, shifted by RL_NUMBER_BITS */
    uint64_t before;    /* packets before the range that scan.packets counts */
    uint64_t *progress; /* where the number of packets is shown to the parent */
    uint32_t count;     /* of shares */
    uint32_t full;
    uint32_t n; /* packets in `packets`, and how many of them have their places */
    uint32_t at;
    uint32_t why; /* of the last rl_scan */
    uint32_t padding;
    int64_t time; /* of RL_SHARE_LARGE, and its bytes */
    uint64_t bytes;
    struct rl_reference packets[64];
    int64_t times[64];
};

/* Which of `count` shares a frame belongs to. Both directions of a flow have the same one. */
uint32_t rl_share_of(const uint8_t *frame, uint32_t length, uint32_t count);

/* Divide packets until one of the reasons above. */
uint32_t rl_share_run(struct rl_sharing *sharing);

/* Let the next rl_share_run begin with a packet that Python read, whose bytes are in buffer 0. */
void rl_share_one(struct rl_sharing *sharing, uint64_t captured, uint64_t original, int64_t time);

/* The chunk of a share in order of time; the share is empty then. Valid until the next call. */
const uint8_t *rl_share_take(struct rl_sharing *sharing, uint32_t which);
#endif
