/* The functions of headers.h and checksums.h for plain Python. */
#include "checksums.h"

void rl_call_headers(const uint8_t *frame, uint32_t length, int64_t *fields)
{
    struct rl_headers found = rl_headers(frame, length);
    memcpy(fields, &found, sizeof found);
}

uint32_t rl_call_checksum(const uint8_t *bytes, uint32_t length, uint64_t initial)
{
    return rl_checksum(bytes, length, initial);
}

int rl_call_update_checksum(uint8_t *frame, uint32_t length, uint32_t offset, uint64_t before,
                            uint64_t after)
{
    return rl_update_checksum(frame, length, offset, before, after);
}

uint32_t rl_call_fix_checksums(uint8_t *frame, uint32_t length)
{
    return rl_fix_checksums(frame, length);
}
