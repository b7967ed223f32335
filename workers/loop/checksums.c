/* See checksums.h. In the worker and not in the driver: workers are many, and a frame whose bytes
 * its worker changes at the same time harms nobody else. */
#include "checksums.h"

#include <string.h>

/* Whether a card computes all checksums of the frame. It sums up to the end of the frame, so there
 * must be no padding, and it knows where headers begin only without options and extensions
 * (rl_ixgbe_context, which looks again). */
static int is_plain(const uint8_t *frame, const struct rl_headers *found, uint32_t length)
{
    int64_t ip_bytes = found->version == 4 ? 20 : 40;
    if (!found->version || found->l4 - found->l3 != ip_bytes || found->fragment ||
        found->end != length || found->l3 > 22)
        return 0;
    int64_t bytes = length - found->l4;
    if (found->protocol == RL_TCP)
        return bytes >= 20;
    if (found->protocol != RL_UDP || bytes < 8 || rl_be16(frame + found->l4 + 4) != bytes)
        return 0;
    return found->version == 6 || rl_be16(frame + found->checksum_at) != 0;
}

/* The sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1), which the card adds to. The card sums
 * the checksum of the IPv4 header too, so the old one must go. */
static void put_pseudo_sum(uint8_t *frame, const struct rl_headers *found, uint32_t length)
{
    uint32_t at = (uint32_t)found->l3 + (found->version == 4 ? 12 : 8);
    uint64_t sum = (uint64_t)found->protocol + length - (uint64_t)found->l4;
    sum = rl_add_words(sum, frame + at, found->version == 4 ? 8 : 32);
    rl_put_be16(frame + found->checksum_at, rl_fold(sum));
    if (found->version == 4)
        rl_put_be16(frame + found->l3 + 10, 0);
}

static void prepare(struct rl_batch *batch, uint32_t packets, uint32_t engines)
{
    for (uint32_t i = 0; i < packets; i++) {
        struct rl_reference *packet = batch->packets + i;
        uint32_t length = packet->length;
        if (!(packet->flags & RL_FLAG_FIX_CHECKSUMS) || packet->port >= batch->ports)
            continue;
        if ((uint32_t)packet->offset + length > batch->room)
            continue; /* the driver refuses it */
        uint8_t *frame = rl_frame(batch, packet);
        struct rl_headers found = rl_headers(frame, length);
        if (engines >> packet->port & 1 && is_plain(frame, &found, length)) {
            put_pseudo_sum(frame, &found, length);
        } else {
            rl_fix_checksums(frame, length);
            packet->flags &= (uint8_t)~RL_FLAG_FIX_CHECKSUMS;
        }
    }
}

void rl_prepare_checksums(struct rl_batch *batch, uint32_t packets, uint32_t engines)
{
    /* The bits of all references, whole, so that the compiler need not pick parts of them. The
     * flags are the last byte. */
    uint64_t seen[2] = {0, 0};
    for (uint32_t i = 0; i < packets; i++) {
        uint64_t reference[2];
        memcpy(reference, batch->packets + i, sizeof reference);
        seen[0] |= reference[0];
        seen[1] |= reference[1];
    }
    if (__builtin_expect(seen[1] >> 56 & RL_FLAG_FIX_CHECKSUMS, 0))
        prepare(batch, packets, engines);
}
