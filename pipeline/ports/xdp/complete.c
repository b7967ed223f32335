/* Checksums of received frames. In a file of its own, so that the bursts stay small. */
#include "../../../workers/headers/checksums.h"
#include "xdp.h"

void rl_xdp_complete(uint8_t *frame, uint32_t length)
{
    rl_fix_checksums(frame, length);
}
