/* Brings the packets of a share into order of time. Plain declarations: the C compiler and cffi
 * both read this file. */
#ifndef RINGLINE_WORKERS_MERGE_H
#define RINGLINE_WORKERS_MERGE_H
#include "share.h"

/* Why rl_merge returns. */
#define RL_MERGE_ROOM 0  /* there is no room for the next packet */
#define RL_MERGE_OPEN 1  /* a chunk that is not open may have the next packet, or there is none */
#define RL_MERGE_ENDED 2 /* the chunk in slot `ended` has no more packets */
#define RL_MERGE_WRONG 3 /* the chunk in slot `ended` is damaged */

/* A chunk that is being merged. */
struct rl_merge_chunk {
    const uint8_t *at; /* its next packet */
    const uint8_t *end;
    int64_t time; /* of that packet, and its ID */
    uint64_t id;
    uint64_t slot; /* its number, for Python */
};

struct rl_merge {
    struct rl_merge_chunk *heap; /* the chunk with the earliest packet is the first one */
    uint64_t count;
    uint64_t ended;
    uint64_t packets; /* that were merged so far */
    uint64_t stop_at; /* RL_MERGE_OPEN when there are so many of them */
    int64_t time;     /* of the last one, and its ID */
    uint64_t id;
    uint64_t more; /* not 0: a chunk that begins at `until` follows */
    int64_t until;
};

/* Take a chunk in; there must be room in the heap. Returns 0 when it is damaged. */
int rl_merge_add(struct rl_merge *merge, const uint8_t *chunk, uint64_t bytes, uint64_t slot);

/* Write packets in order to `out`; returns how many bytes. `why` is RL_MERGE_*. */
uint64_t rl_merge_run(struct rl_merge *merge, uint8_t *out, uint64_t room, uint32_t *why);
#endif
