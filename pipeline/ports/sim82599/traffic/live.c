/* A live wire: frames come from a datagram socket or a TAP and go to it, one at a time.
 *
 * Nothing is lost for lack of time on either side. A frame that finds no descriptor waits at the
 * card, and those behind it wait in the socket; after WAIT_NS the card drops it and counts it. A
 * frame that the other end cannot take yet waits in `bytes`, and the card takes no descriptors
 * while many wait. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "deliver.h"

#define WAIT_NS 1000000000u
#define FRAME_BYTES 16384
#define OUT_BYTES (1u << 20)
#define OUT_ENOUGH (1u << 18) /* the longest burst of a descriptor fits above it */

int32_t rl_sim_live(struct rl_sim *sim, int32_t fd, const void *peer, uint32_t peer_bytes)
{
    struct rl_sim_live *live = &sim->live;
    if (peer_bytes > sizeof live->peer)
        return -2;
    rl_sim_source_free(sim);
    live->bytes = malloc(OUT_BYTES);
    sim->frames = calloc(1, sizeof *sim->frames);
    sim->layers = calloc(1, sizeof *sim->layers);
    sim->bytes = aligned_alloc(64, FRAME_BYTES);
    if (!live->bytes || !sim->frames || !sim->layers || !sim->bytes) {
        rl_sim_source_free(sim);
        return -1;
    }
    memset(sim->bytes, 0, FRAME_BYTES);
    sim->frames->bytes = sim->bytes;
    if (peer_bytes)
        memcpy(live->peer, peer, peer_bytes);
    live->peer_bytes = peer_bytes;
    live->fd = fd;
    return 0;
}

static ssize_t give(const struct rl_sim_live *live, const uint8_t *bytes, uint32_t length)
{
    if (live->peer_bytes == 0)
        return write(live->fd, bytes, length);
    return sendto(live->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                  (const struct sockaddr *)(const void *)live->peer, live->peer_bytes);
}

/* Send the frames that wait, as far as the other end takes them. */
static void send_waiting(struct rl_sim_live *live, struct rl_sim_wire *wire)
{
    uint32_t done = 0;
    while (done < live->used) {
        uint32_t length;
        memcpy(&length, live->bytes + done, sizeof length);
        if (give(live, live->bytes + done + sizeof length, length) < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
                break;
            wire->lost++; /* nobody is there, or the interface is down */
        }
        done += (uint32_t)sizeof length + length;
    }
    live->used -= done;
    memmove(live->bytes, live->bytes + done, live->used);
}

bool rl_sim_live_full(const struct rl_sim *sim)
{
    return sim->live.used > OUT_ENOUGH;
}

void rl_sim_live_send(struct rl_sim *sim, const uint8_t *bytes, uint32_t length)
{
    struct rl_sim_live *live = &sim->live;
    if (live->used + sizeof length + length > OUT_BYTES) {
        sim->card->wire.lost++;
        return;
    }
    memcpy(live->bytes + live->used, &length, sizeof length);
    memcpy(live->bytes + live->used + sizeof length, bytes, length);
    live->used += (uint32_t)sizeof length + length;
}

static bool take(struct rl_sim *sim)
{
    struct rl_sim_live *live = &sim->live;
    if (live->pending)
        return true;
    ssize_t length = read(live->fd, sim->bytes, FRAME_BYTES);
    if (length <= 0)
        return false;
    if (length < RL_SIM_MIN) { /* the sender's end of a wire pads */
        memset(sim->bytes + length, 0, (size_t)(RL_SIM_MIN - length));
        length = RL_SIM_MIN;
    }
    rl_sim_parse(sim->bytes, (uint32_t)length, sim->layers);
    sim->frames->epoch = 0;
    live->pending = true;
    live->since = 0;
    return true;
}

bool rl_sim_deliver_one(struct rl_sim *sim, struct rl_sim_window *window)
{
    struct rl_sim_frame *frame = sim->frames;
    if (!sim->receiving) {
        sim->tally.not_receiving++;
        sim->tally.not_receiving_bytes += sim->layers->length;
        return true;
    }
    if (!rl_sim_deliverable(sim, frame, sim->epoch)) {
        rl_sim_reject(sim, frame);
        return true;
    }
    struct rl_sim_rx_queue *queue = &sim->rx[frame->queue];
    enum rl_sim_outcome outcome = RL_SIM_NO_ROOM;
    if (queue->head != queue->tail)
        outcome = rl_sim_deliver(sim, queue, frame, window);
    if (outcome == RL_SIM_DELIVERED) {
        sim->tally.classes[frame->size_class]++;
        return true;
    }
    if (outcome == RL_SIM_LOST || queue->halted) {
        rl_sim_drop(sim, frame, &sim->tally.dma);
        return true;
    }
    if (!queue->enabled) {
        rl_sim_drop(sim, frame, &sim->tally.disabled);
        return true;
    }
    return false;
}

/* Returns whether the frame at hand is done with. */
static bool deliver(struct rl_sim *sim, struct rl_sim_window *window)
{
    struct rl_sim_live *live = &sim->live;
    if (rl_sim_deliver_one(sim, window))
        return true;
    uint64_t now = rl_sim_now();
    if (live->since == 0)
        live->since = now;
    if (now - live->since < WAIT_NS)
        return false;
    rl_sim_drop(sim, sim->frames, &sim->rx[sim->frames->queue].missed);
    return true;
}

uint32_t rl_sim_receive_live(struct rl_sim *sim)
{
    struct rl_sim_window window = sim->windows[sim->window_last];
    uint32_t moved = 0;
    send_waiting(&sim->live, &sim->card->wire);
    if (sim->receive_unchecked && sim->rx_count != 0)
        rl_sim_check_receive(sim);
    while (moved < RL_SIM_BATCH && take(sim)) {
        if (sim->loopback) {
            sim->tally.not_receiving++;
            sim->tally.not_receiving_bytes += sim->layers->length;
        } else if (!deliver(sim, &window))
            break;
        sim->live.pending = false;
        moved++;
    }
    return moved;
}
