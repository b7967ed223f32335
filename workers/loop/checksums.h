/* Checksums that are written when a frame is sent (RL_FLAG_FIX_CHECKSUMS): by the card of the port,
 * or by the worker where the card cannot.
 *
 * Guarantee: what leaves is what rl_fix_checksums writes, whoever writes it
 * (tests/e2e/test_send_checksums.py: test_card_and_software_write_the_same). */
#ifndef RINGLINE_WORKERS_LOOP_CHECKSUMS_H
#define RINGLINE_WORKERS_LOOP_CHECKSUMS_H
#include "../plugin.h"

/* Prepare the frames of `packets` that have the flag and go to a port. `engines` has a bit for each
 * port whose card computes checksums. Where the card does it, the flag stays, and the checksum
 * field gets the sum of the pseudo header; else the checksums are written and the flag is removed.
 */
void rl_prepare_checksums(struct rl_batch *batch, uint32_t packets, uint32_t engines);
#endif
