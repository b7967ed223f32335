/* Brings the packets of a share into order of time: see merge.h.
 *
 * Packets of the same time are in the order of their IDs: of the captures, and in each of them of
 * the file. So the order does not depend on how captures were divided. */
#include "merge.h"
#include "record.h"

static int is_before(const struct rl_merge_chunk *a, const struct rl_merge_chunk *b)
{
    return a->time != b->time ? a->time < b->time : a->id < b->id;
}

/* Look at the next packet of a chunk; 0 when there cannot be one. */
static int look(struct rl_merge_chunk *chunk)
{
    uint32_t bytes;
    uint64_t left = (uint64_t)(chunk->end - chunk->at);
    if (left < RL_RECORD_BYTES)
        return 0;
    memcpy(&bytes, chunk->at + 4, sizeof bytes);
    if (bytes < RL_RECORD_BYTES || bytes > RL_RECORD_MAX || bytes > left)
        return 0;
    struct rl_record record = rl_record_at(chunk->at);
    chunk->time = record.time;
    chunk->id = record.id;
    return 1;
}

static void sink(struct rl_merge *merge)
{
    struct rl_merge_chunk *heap = merge->heap, moved = heap[0];
    uint64_t at = 0, below;
    while ((below = 2 * at + 1) < merge->count) {
        below += below + 1 < merge->count && is_before(heap + below + 1, heap + below);
        if (!is_before(heap + below, &moved))
            break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = moved;
}

int rl_merge_add(struct rl_merge *merge, const uint8_t *chunk, uint64_t bytes, uint64_t slot)
{
    struct rl_merge_chunk *heap = merge->heap;
    struct rl_merge_chunk added = {.at = chunk, .end = chunk + bytes, .slot = slot};
    if (!look(&added))
        return 0;
    uint64_t at = merge->count++;
    for (; at && is_before(&added, heap + (at - 1) / 2); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = added;
    return 1;
}

uint64_t rl_merge_run(struct rl_merge *merge, uint8_t *out, uint64_t room, uint32_t *why)
{
    uint64_t done = 0;
    while (merge->count) {
        struct rl_merge_chunk *chunk = merge->heap;
        uint32_t bytes;
        memcpy(&bytes, chunk->at + 4, sizeof bytes);
        if ((merge->more && chunk->time >= merge->until) || merge->packets == merge->stop_at)
            break;
        *why = RL_MERGE_ROOM;
        if (done + bytes > room)
            return done;
        memcpy(out + done, chunk->at, bytes);
        done += bytes;
        merge->packets++;
        merge->time = chunk->time;
        merge->id = chunk->id;
        chunk->at += bytes;
        if (chunk->at < chunk->end && look(chunk)) {
            sink(merge);
            continue;
        }
        *why = chunk->at < chunk->end ? RL_MERGE_WRONG : RL_MERGE_ENDED;
        merge->ended = chunk->slot;
        *chunk = merge->heap[--merge->count];
        sink(merge);
        return done;
    }
    *why = RL_MERGE_OPEN;
    return done;
}
