/* Bursts of the 82599, on its descriptor rings. Plain declarations: C and cffi read this. */
#ifndef RINGLINE_IXGBE_H
#define RINGLINE_IXGBE_H
#include "../descriptor_rings/rings.h"

/* See struct rl_port. */
uint32_t rl_ixgbe_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                           uint32_t n);
uint32_t rl_ixgbe_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                           uint32_t n);

/* The transmit context that must hold for the frame of `ref`: its lower word, and the upper one
 * from bit 32 on, without the bits that all contexts have. `context` is the one that holds; it is
 * the answer for a frame that needs none. Sets the bits of the data descriptor in `upper`. */
uint64_t rl_ixgbe_context(const struct rl_memory *memory, const struct rl_reference *ref,
                          uint64_t context, uint64_t *upper);
#endif
