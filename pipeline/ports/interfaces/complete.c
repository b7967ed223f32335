/* Checksums of received frames. In a file of its own, so that the bursts stay small. */
#include "complete.h"

#include "../../../workers/headers/checksums.h"

void rl_complete(uint8_t *frame, uint32_t length)
{
    rl_fix_checksums(frame, length);
}
