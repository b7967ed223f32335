/* A split virtqueue in shared memory (Virtio 1.2, section 2.7), for any transport: PCI, vhost-user.
 * Plain declarations: C and cffi read this file. The functions for each packet are in driver.h;
 * the device's end would use the same structs. */
#ifndef RINGLINE_VIRTQUEUE_H
#define RINGLINE_VIRTQUEUE_H
#include <stdint.h>

#define RL_VIRTQ_WRITE 2        /* descriptor: the device writes this buffer */
#define RL_VIRTQ_NEXT 1         /* descriptor: the chain goes on with `next` */
#define RL_VIRTQ_NO_NOTIFY 1    /* used: the device wants no notification */
#define RL_VIRTQ_NO_INTERRUPT 1 /* available: the driver wants no interrupt */

struct rl_virtq_descriptor {
    uint64_t address; /* as the device sees it */
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

/* `ring` has as many entries as the queue, then one more: the used_event of VIRTIO_F_EVENT_IDX. */
struct rl_virtq_available {
    uint16_t flags;
    uint16_t index;
    uint16_t ring[];
};

struct rl_virtq_element {
    uint32_t id;     /* the first descriptor of a chain */
    uint32_t length; /* bytes that the device wrote */
};

/* After `ring` comes the avail_event of VIRTIO_F_EVENT_IDX, 2 bytes. */
struct rl_virtq_used {
    uint16_t flags;
    uint16_t index;
    struct rl_virtq_element ring[];
};

/* One end of a virtqueue. The three parts are shared; the rest is private memory of this end. The
 * driver writes descriptors and `available`, the device `used`. Indices run on to 65535 and wrap.
 */
struct rl_virtq {
    struct rl_virtq_descriptor *descriptors;
    struct rl_virtq_available *available;
    struct rl_virtq_used *used;
    uint32_t mask;      /* descriptors - 1; their number is a power of two */
    uint16_t events;    /* whether VIRTIO_F_EVENT_IDX is negotiated */
    uint16_t written;   /* index after the last entry that this end wrote to its ring */
    uint16_t published; /* the same, as the other end may see it */
    uint16_t read;      /* index of the first entry of the other ring that is still to be read */
};

/* Bytes of shared memory for a queue of `size` descriptors. It begins at a multiple of 64. */
uint32_t rl_virtq_bytes(uint32_t size);

/* Lay an empty queue out in zeroed `memory`, at the driver's end, which wants no interrupts. */
void rl_virtq_place(struct rl_virtq *queue, void *memory, uint32_t size, int events);

/* For what is not in the packet path. Make one chain available; returns whether the device wants a
 * notification. */
int rl_virtq_give(struct rl_virtq *queue, uint16_t head);

/* Read one used element; returns 0 when there is none. */
int rl_virtq_get(struct rl_virtq *queue, struct rl_virtq_element *element);
#endif
