/* Bursts of the 82574L and the 82576, on their descriptor rings. Plain declarations: C and cffi
 * read this. */
#ifndef RINGLINE_E1000E_H
#define RINGLINE_E1000E_H
#include "../descriptor_rings/rings.h"

/* See struct rl_port. Its index in `port_and_flags` is made of bits of a receive descriptor. */
uint32_t rl_e1000e_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_e1000e_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                            uint32_t n);
uint32_t rl_igb_tx_burst(struct rl_port *port, uint32_t queue, const struct rl_reference *refs,
                         uint32_t n);
#endif
