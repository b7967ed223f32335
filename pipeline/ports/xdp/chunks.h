/* The addresses of an AF_XDP socket, as buffers and offsets in them. */
#ifndef RINGLINE_XDP_CHUNKS_H
#define RINGLINE_XDP_CHUNKS_H
#include "xdp.h"

#define RL_XDP_ADDRESS_BITS 48

/* The address of a buffer's chunk. */
static inline uint64_t rl_xdp_chunk(uint32_t buffer)
{
    return (uint64_t)buffer * RL_BUFFER_STRIDE + RL_XDP_FIRST;
}

/* The address of a frame at `offset` in a buffer. */
static inline uint64_t rl_xdp_frame(uint32_t buffer, uint32_t offset)
{
    return rl_xdp_chunk(buffer) | (uint64_t)(offset + RL_XDP_LEAD) << RL_XDP_ADDRESS_BITS;
}

/* The buffer of an address; of one that is not ours, any number. */
static inline uint64_t rl_xdp_buffer(uint64_t address)
{
    uint64_t chunk = address & ((UINT64_C(1) << RL_XDP_ADDRESS_BITS) - 1);
    return (chunk - RL_XDP_FIRST) / RL_BUFFER_STRIDE;
}

/* The offset of the frame with this address in its buffer. */
static inline uint16_t rl_xdp_offset(uint64_t address)
{
    return (uint16_t)((address >> RL_XDP_ADDRESS_BITS) - RL_XDP_LEAD);
}
#endif
