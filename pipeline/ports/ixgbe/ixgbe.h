/* Bursts of the 82599, on its descriptor rings. Plain declarations: C and cffi read this. */
#ifndef RINGLINE_IXGBE_H
#define RINGLINE_IXGBE_H
#include "../descriptor_rings/rings.h"

/* See struct rl_port. */
uint32_t rl_ixgbe_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                           uint32_t n);
uint32_t rl_ixgbe_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                           uint32_t n);
#endif
