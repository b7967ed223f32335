/* The queues of a virtio-net device. Only the virtqueues are shared with it; the rest is private
 * memory of the driver. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_VIRTIO_H
#define RINGLINE_VIRTIO_H
#include "../port.h"
#include "../virtqueue/virtqueue.h"

#define RL_VIRTIO_DESCRIPTORS 4096 /* the longest queue that the configuration allows */

/* One receive or transmit queue. `buffers` has the buffer of each descriptor, or RL_NO_BUFFER.
 * Receive: a packet takes one descriptor.
 * Transmit: a packet takes two, since its header must not lie where workers can write. The first is
 * in the lower half of the queue, says where the header is and never changes; the second, of the
 * frame, is at the same place in the upper half. `spare` is a stack of the first ones without a
 * buffer. `lengths` are the bytes of the frames. */
struct rl_virtio_queue {
    struct rl_virtq ring;
    volatile uint16_t *doorbell;
    uint16_t number; /* what is written to the doorbell */
    uint16_t broken; /* the device has returned what it did not have; the queue is not used */
    uint32_t spares;
    uint64_t doorbells; /* written until now */
    uint64_t completed; /* received frames whose checksum the driver has completed */
    uint32_t buffers[RL_VIRTIO_DESCRIPTORS];
    uint16_t spare[RL_VIRTIO_DESCRIPTORS];
    uint16_t lengths[RL_VIRTIO_DESCRIPTORS];
};

struct rl_virtio {
    struct rl_port port;
    uint64_t no_offload; /* device address of the header of all frames that are sent: zeros */
    uint32_t header;     /* bytes before each frame: struct virtio_net_hdr_v1, or ..._v1_hash */
    uint32_t strip;      /* take VLAN tags out of received frames */
    uint32_t draining;   /* post no buffers any more */
    struct rl_virtio_queue rx[RL_QUEUES_MAX];
    struct rl_virtio_queue tx[RL_QUEUES_MAX];
};

/* See struct rl_port. */
uint32_t rl_virtio_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_virtio_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_virtio_reclaim(struct rl_port *port, uint32_t queue);

/* Put a buffer into every receive descriptor, and none into transmit descriptors. The rings must be
 * placed, and there must be enough free buffers. The device does not see them before
 * rl_virtio_receive. */
void rl_virtio_post(struct rl_virtio *card);

/* Let the device see the buffers for receiving. */
void rl_virtio_receive(struct rl_virtio *card);

/* Return every buffer to the free list. Call it only when the device does no DMA. Packets that it
 * has not reported as sent are counted as dropped because the output is down. */
void rl_virtio_return_all(struct rl_virtio *card);

/* The number of buffers in `queues` queues, counted descriptor by descriptor. Adds one to
 * seen[buffer] for each, unless `seen` is NULL. */
uint32_t rl_virtio_scan(const struct rl_virtio_queue *queue, uint32_t queues, uint8_t *seen);
#endif
