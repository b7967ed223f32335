/* The receive burst of a simulated card whose wire has times of its own, such as those of a
 * capture. No 82599 has them: the model leaves them in memory beside the descriptors. Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_SIM82599_STAMPS_H
#define RINGLINE_SIM82599_STAMPS_H
#include "../ixgbe/ixgbe.h"

#define RL_SIM_STAMPS_PER_QUEUE 4096 /* the longest ring that the configuration allows */

struct rl_sim_stamps {
    int64_t of_burst[64]; /* port->stamps */
    /* [queue * RL_SIM_STAMPS_PER_QUEUE + descriptor]: when its frame came, in nanoseconds since
     * 1970. The model writes it before it writes the descriptor back. */
    const int64_t *descriptors;
};

/* rl_ixgbe_rx_burst for a port whose `stamps` is the `of_burst` of a struct rl_sim_stamps. */
uint32_t rl_sim_rx_burst(struct rl_port *port, uint32_t queue, struct rl_reference *refs,
                         uint32_t n);
#endif
