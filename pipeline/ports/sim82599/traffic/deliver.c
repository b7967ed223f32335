/* The slow path of delivery, and frames that are not delivered. */
#include "deliver.h"

enum rl_sim_outcome rl_sim_abort_dma(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                     uint64_t address, uint32_t bytes)
{
    uint32_t number = (uint32_t)(queue - sim->rx);
    rl_sim_fault(sim, RL_SIM_FAULT_DMA, number, address,
                 "DMA write of %u bytes to 0x%llx, receive queue %u descriptor %u: outside every "
                 "window; the queue stops",
                 bytes, (unsigned long long)address, number, queue->head);
    queue->halted = 1;
    queue->tail = queue->head;
    return RL_SIM_LOST;
}

static uint32_t crc32(const uint8_t *bytes, uint32_t length)
{
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (uint32_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* A frame that the card changes, or that takes several descriptors. */
enum rl_sim_outcome rl_sim_deliver_slowly(struct rl_sim *sim, struct rl_sim_rx_queue *queue,
                                          const struct rl_sim_frame *frame)
{
    uint8_t image[RL_SIM_LENGTH_MAX + RL_SIM_TAG + RL_SIM_CRC];
    uint32_t number = (uint32_t)(queue - sim->rx);
    uint32_t length = rl_sim_length(frame);
    uint32_t status = (uint32_t)frame->upper & ~STATUS_EOP;
    uint32_t tag = 0;
    memcpy(image, frame->bytes, length);
    if (sim->crc_bytes) {
        uint32_t crc = crc32(image, length);
        memcpy(image + length, &crc, sizeof crc);
        length += sim->crc_bytes;
    }
    if (frame->tagged && queue->strip) {
        tag = rl_sim_be16(image + 14);
        length -= RL_SIM_TAG;
        memmove(image + 12, image + 12 + RL_SIM_TAG, length - 12);
    }
    uint32_t pieces = (length + queue->buffer_bytes - 1) / queue->buffer_bytes;
    uint32_t room = queue->tail + (queue->tail < queue->head ? queue->size : 0) - queue->head;
    if (pieces >= queue->size) {
        rl_sim_fault(
            sim, RL_SIM_FAULT_RX_DESCRIPTOR, number, 0,
            "a frame of %u bytes never fits the %u descriptors of receive queue %u: dropped",
            length, queue->size, number);
        return RL_SIM_LOST;
    }
    if (pieces > room)
        return RL_SIM_NO_ROOM;
    rl_sim_stamp(sim, queue, frame);
    for (uint32_t done = 0; done < length;) {
        uint64_t *descriptor = queue->ring + 2 * (uint64_t)queue->head;
        uint64_t address = __atomic_load_n(&descriptor[0], __ATOMIC_RELAXED);
        uint32_t part = length - done < queue->buffer_bytes ? length - done : queue->buffer_bytes;
        if (descriptor[1] & STATUS_DD)
            rl_sim_lint(sim, RL_SIM_FAULT_RX_DESCRIPTOR, number, queue->head,
                        "receive queue %u descriptor %u was offered to the card with DD set: "
                        "software would take it for a received frame",
                        number, queue->head);
        if (!rl_sim_write_memory(sim, address, image + done, part))
            return rl_sim_abort_dma(sim, queue, address, part);
        done += part;
        uint64_t upper = (uint64_t)part << 32 | status;
        if (done == length)
            upper |= (uint64_t)tag << 48 | STATUS_EOP;
        rl_sim_write_back(descriptor, frame->lower, upper);
        rl_sim_advance(queue);
    }
    queue->count += RL_SIM_ONE_FRAME + rl_sim_length(frame);
    return RL_SIM_DELIVERED;
}

void rl_sim_reject(struct rl_sim *sim, const struct rl_sim_frame *frame)
{
    uint32_t length = sim->layers[frame - sim->frames].length;
    if (frame->fate == RL_SIM_FILTERED) {
        sim->tally.filtered++;
        sim->tally.filtered_bytes += length;
        return;
    }
    *(frame->fate == RL_SIM_OVERSIZE ? &sim->tally.oversize : &sim->tally.undersize) += 1;
    sim->tally.bad_bytes += length;
}

/* Drop a frame that the MAC accepted but that gets no buffer; count it in `reason`. */
void rl_sim_drop(struct rl_sim *sim, const struct rl_sim_frame *frame, uint64_t *reason)
{
    sim->tally.classes[frame->size_class]++;
    sim->tally.bytes += rl_sim_length(frame);
    *reason += 1;
}
