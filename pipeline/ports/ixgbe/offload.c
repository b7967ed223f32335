/* What a transmit context says of a frame (82599 datasheet, 7.2.3.2.3): its VLAN tag, and where the
 * headers are whose checksums the card computes. */
#include "../memory.h"
#include "ixgbe.h"

#define TX_VLE (UINT64_C(1) << 30)
#define TX_IXSM (UINT64_C(1) << 40)
#define TX_TXSM (UINT64_C(1) << 41)
#define CONTEXT_IPV4 (UINT64_C(1) << (32 + 10))
#define CONTEXT_TCP (UINT64_C(1) << (32 + 11)) /* else UDP */

static uint32_t be16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 8 | bytes[1];
}

static int is_tag(uint32_t ethertype)
{
    return ethertype == 0x8100 || ethertype == 0x88a8;
}

/* The place of the headers, and the bits of the data descriptor; 0 if the card could not compute
 * the checksums. The worker has looked before (workers/loop/checksums.c). It is not trusted: what
 * this returns lies within the frame, whatever the worker writes there meanwhile. */
static uint64_t headers_of(const uint8_t *frame, uint32_t length, uint64_t *upper)
{
    uint32_t l3 = 14;
    while (l3 < 22 && l3 + 4 <= length && is_tag(be16(frame + l3 - 2)))
        l3 += 4;
    if (length < l3 + 20 + 8)
        return 0;
    int ipv4 = frame[l3] == 0x45;
    uint32_t ip_bytes = ipv4 ? 20 : 40, protocol = frame[l3 + (ipv4 ? 9 : 6)];
    uint32_t least = protocol == 6 ? 20 : 8;
    if ((!ipv4 && frame[l3] >> 4 != 6) || (protocol != 6 && protocol != 17) ||
        length < l3 + ip_bytes + least)
        return 0;
    *upper |= TX_TXSM | (ipv4 ? TX_IXSM : 0);
    return l3 << 9 | ip_bytes | (ipv4 ? CONTEXT_IPV4 : 0) | (protocol == 6 ? CONTEXT_TCP : 0);
}

uint64_t rl_ixgbe_context(const struct rl_memory *memory, const struct rl_reference *ref,
                          uint64_t context, uint64_t *upper)
{
    uint64_t tag = ref->flags & RL_FLAG_VLAN ? (uint64_t)ref->vlan_tci << 16 : 0;
    uint64_t headers = 0;
    if (ref->flags & RL_FLAG_FIX_CHECKSUMS)
        headers = headers_of(rl_buffer(memory, ref->buffer) + ref->offset, ref->length, upper);
    if (ref->flags & RL_FLAG_VLAN)
        *upper |= TX_VLE;
    return headers || ref->flags & RL_FLAG_VLAN ? tag | headers : context;
}
