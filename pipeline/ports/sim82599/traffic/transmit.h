/* Advanced transmit descriptors: their bits, and what both ways through them share. */
#ifndef RINGLINE_SIM82599_TRANSMIT_H
#define RINGLINE_SIM82599_TRANSMIT_H
#include "../chip/model.h"

/* The second word of a data descriptor. */
#define LENGTH(high) ((uint32_t)(high)&0xFFFF)
#define PAYLEN(high) ((uint32_t)((high) >> 46))
#define PAYLEN_OF(length) ((uint64_t)(length) << 46)
#define PAYLEN_MASK PAYLEN_OF(0x3FFFF)
#define DTYP(high) ((uint32_t)((high) >> 20) & 0xF)
#define DTYP_CONTEXT 2
#define DTYP_DATA 3
#define DTYP_MASK (0xFull << 20)
#define EOP (1ull << 24)
#define IFCS (1ull << 25)
#define RS (1ull << 27)
#define DEXT (1ull << 29)
#define VLE (1ull << 30)
#define TSE (1ull << 31)
#define DD (1ull << 32)
#define INDEX(high) ((uint32_t)((high) >> 36) & 7)
#define IXSM (1ull << 40)
#define TXSM (1ull << 41)
#define POPTS (0x3Full << 40)

/* A context descriptor. */
#define CONTEXT_IPLEN(low) ((uint32_t)(low)&0x1FF)
#define CONTEXT_MACLEN(low) ((uint32_t)((low) >> 9) & 0x7F)
#define CONTEXT_TAG(low) ((uint16_t)((low) >> 16))
#define CONTEXT_IPV4 (1ull << 10)
#define CONTEXT_L4T(high) ((uint32_t)((high) >> 11) & 3)
#define CONTEXT_UDP 0
#define CONTEXT_TCP 1
#define CONTEXT_SCTP 2
#define CONTEXT_L4LEN(high) ((uint32_t)((high) >> 40) & 0xFF)
#define CONTEXT_MSS(high) ((uint32_t)((high) >> 48))

/* Copy the data of a packet; all segments lie within windows. */
void rl_sim_gather(struct rl_sim *sim, uint8_t *to, const struct rl_sim_segment *segments,
                   uint32_t count);

/* Put a frame on the wire: with the tag, if it is not negative, and padded. There is room for the
 * tag and the padding behind it. */
void rl_sim_emit(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint8_t *frame, uint32_t length,
                 int32_t tag);

/* loopback.c: receive a frame that the card sends, instead of putting it on the wire. */
void rl_sim_loop_back(struct rl_sim *sim, const uint8_t *frame, uint32_t length);

/* Send the packet at hand with the offloads that it asks for. Returns a problem, or NULL. */
const char *rl_sim_offload(struct rl_sim *sim, struct rl_sim_tx_queue *queue, int32_t tag);
#endif
